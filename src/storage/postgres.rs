//! PostgreSQL that may stop answering without ending a connection: a proxy that swallows bytes, a server that was stopped,
//! a disk that hangs.
//!
//! Every answer is waited for no longer than for a connection (`database.answer_within`, which is the pool's own limit).
//! After that the connection is given up for good, because an answer that still came would be taken for that of the next
//! question, and nobody knows what the server did or will do with what it was asked (`docs/adr/0016`). Connections go
//! back to the pool under the same limit: the pool itself asks them for a sign of life first, for as long as it takes.

use std::future::Future;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{Executor as _, PgPool, Postgres};

use super::StorageError;

/// Longest wait for an answer to work that takes its time: a table that is looked at as a whole.
const LONG: Duration = Duration::from_secs(60);

/// How long answers are waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// As configured.
    Usual,
    /// For work that nobody waits for and that grows with the database.
    Long,
}

/// A statement with its values.
pub(super) type Question = Query<'static, Postgres, PgArguments>;

/// What a pool's connections are told: its limit, which also bounds what the server does by itself. A statement whose caller has
/// given up ends, and so does a transaction whose process has vanished, with the locks it holds.
pub(super) fn limited(pool: PgPoolOptions, limit: Duration, settings: &'static str) -> PgPoolOptions {
    pool.acquire_timeout(limit).after_connect(move |connection, _| {
        Box::pin(async move {
            connection.execute(settings).await?;
            connection.execute(sqlx::AssertSqlSafe(server_limits(limit))).await?;
            Ok(())
        })
    })
}

fn server_limits(limit: Duration) -> String {
    let millis = limit.as_millis();
    format!("SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}")
}

/// A connection on loan from the pool.
pub(super) struct Loan {
    /// `None` once it was given up.
    connection: Option<PoolConnection<Postgres>>,
    limit: Duration,
    /// A transaction was begun on it and has not ended.
    open: bool,
}

impl Loan {
    /// Waits for a free connection.
    pub(super) async fn take(pool: &PgPool) -> Result<Self, StorageError> {
        let limit = pool.options().get_acquire_timeout();
        Ok(Self { connection: Some(pool.acquire().await?), limit, open: false })
    }

    /// Begins a transaction; unless it is committed, it is rolled back.
    pub(super) async fn begin(pool: &PgPool, patience: Patience) -> Result<Self, StorageError> {
        let mut loan = Self::take(pool).await?;
        loan.open = true;
        loan.say("BEGIN").await?;
        if patience == Patience::Long {
            loan.say("SET LOCAL statement_timeout = 0").await?;
            loan.limit = LONG;
        }
        Ok(loan)
    }

    /// Makes a transaction durable.
    pub(super) async fn commit(mut self) -> Result<(), StorageError> {
        self.say("COMMIT").await?;
        self.open = false;
        Ok(())
    }

    /// Runs a statement and reads its rows.
    pub(super) async fn rows(&mut self, question: Question) -> Result<Vec<PgRow>, StorageError> {
        let (limit, connection) = (self.limit, self.connection()?);
        let answer = within(limit, connection.fetch_all(question)).await;
        self.judge(answer)
    }

    /// Runs a statement; gives the number of rows it changed.
    pub(super) async fn exec(&mut self, question: Question) -> Result<u64, StorageError> {
        let (limit, connection) = (self.limit, self.connection()?);
        let answer = within(limit, connection.execute(question)).await;
        Ok(self.judge(answer)?.rows_affected())
    }

    async fn say(&mut self, words: &'static str) -> Result<(), StorageError> {
        let (limit, connection) = (self.limit, self.connection()?);
        let answer = within(limit, connection.execute(words)).await;
        self.judge(answer)?;
        Ok(())
    }

    fn connection(&mut self) -> Result<&mut PoolConnection<Postgres>, StorageError> {
        self.connection.as_mut().ok_or_else(|| StorageError::Unavailable("the connection was given up".to_owned()))
    }

    /// Gives the connection up if there was no answer.
    fn judge<T>(&mut self, answer: Option<Result<T, sqlx::Error>>) -> Result<T, StorageError> {
        if let Some(answer) = answer {
            return Ok(answer?);
        }
        // Closed at once and without a farewell, which would have to be sent.
        drop(self.connection.take().map(PoolConnection::detach));
        Err(StorageError::Unavailable(format!("no answer within {} ms", self.limit.as_millis())))
    }
}

/// `None` without an answer in time.
async fn within<T>(limit: Duration, asked: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, asked).await.ok()
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The process is ending.
            drop(connection.detach());
            return;
        };
        let (limit, open) = (self.limit, self.open);
        runtime.spawn(async move {
            if open && !matches!(within(limit, connection.execute("ROLLBACK")).await, Some(Ok(_))) {
                drop(connection.detach());
                return;
            }
            // Dropped with the limit, it closes the connection; left to itself it would keep its place in the pool until the
            // server answers.
            let back = connection.return_to_pool();
            let _ = within(limit, back).await;
        });
    }
}
