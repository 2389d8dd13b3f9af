//! Rows written straight into the database, in the shape in which the service leaves them: for amounts that would take
//! hours to make by its own hand. One text serves both databases. Nobody else works in the database meanwhile.

use std::str::FromStr;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Executor, PgPool, Row, SqlitePool};

/// A database to fill.
pub(crate) enum Store {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// What stands for row `n.i`: ten digits, so that text sorts like the number.
const NUMBER: &str = "substr(CAST(10000000000 + n.i AS TEXT), 2)";
/// First sixteen characters of ids: a ULID of the past, so that what is new stands behind it.
const PAST: &str = "01J0000000000000";

/// The part of an id behind its prefix, made of an expression.
fn body(number: &str) -> String {
    format!("'{PAST}' || {number}")
}

/// Text that looks random but is the same for the same row, of ten digits.
fn scattered() -> String {
    "substr(CAST(10000000000 + (n.i * 2654435761) % 9999999967 AS TEXT), 2)".to_owned()
}

impl Store {
    /// Opens it beside a service that has ended.
    pub(crate) async fn open(url: &str) -> Self {
        if url.starts_with("postgres") {
            return Self::Postgres(PgPool::connect(url).await.unwrap());
        }
        // What is filled in may be lost with the machine; it is not measured.
        let options = SqliteConnectOptions::from_str(url).unwrap().synchronous(SqliteSynchronous::Off);
        Self::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap())
    }

    /// Runs one statement.
    pub(crate) async fn run(&self, text: String) {
        let shown = text.chars().take(300).collect::<String>();
        let result = match self {
            Self::Sqlite(pool) => pool.execute(AssertSqlSafe(text)).await.map(|_| ()),
            Self::Postgres(pool) => pool.execute(AssertSqlSafe(text)).await.map(|_| ()),
        };
        result.unwrap_or_else(|error| panic!("{error}: {shown}"));
    }

    /// The number that a statement gives.
    pub(crate) async fn number(&self, text: &str) -> i64 {
        let text = AssertSqlSafe(text.to_owned());
        match self {
            Self::Sqlite(pool) => pool.fetch_one(text).await.unwrap().get(0),
            Self::Postgres(pool) => pool.fetch_one(text).await.unwrap().get(0),
        }
    }

    /// The text that a statement gives.
    pub(crate) async fn text(&self, text: &str) -> String {
        let text = AssertSqlSafe(text.to_owned());
        match self {
            Self::Sqlite(pool) => pool.fetch_one(text).await.unwrap().get(0),
            Self::Postgres(pool) => pool.fetch_one(text).await.unwrap().get(0),
        }
    }

    /// Inserts rows of literals, a thousand at a time. None of our values holds a quote.
    pub(crate) async fn insert(&self, into: &str, rows: &[String]) {
        for page in rows.chunks(1000) {
            self.run(format!("INSERT INTO {into} VALUES {}", page.join(", "))).await;
        }
    }

    /// Inserts what `columns` say of each number from `from` to below `to`.
    pub(crate) async fn generate(&self, from: u64, to: u64, into: &str, columns: &str) {
        let numbers = format!(
            "WITH RECURSIVE n(i) AS (SELECT CAST({from} AS BIGINT) UNION ALL SELECT n.i + 1 FROM n WHERE n.i + 1 < {to})"
        );
        if from < to {
            self.run(format!("{numbers} INSERT INTO {into} SELECT {columns} FROM n WHERE TRUE")).await;
        }
    }

    /// What a database knows after years of use: how its planner finds its way.
    pub(crate) async fn analyze(&self) {
        match self {
            // The service never asks SQLite to.
            Self::Sqlite(_) => {}
            Self::Postgres(_) => self.run("ANALYZE".to_owned()).await,
        }
    }

    pub(crate) async fn close(self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Messages to write, by number.
pub(crate) struct Lot {
    /// First number, and the one behind the last.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Expressions of `n.i`: id of the portal, id of the channel, the card.
    pub(crate) portal: String,
    pub(crate) channel: String,
    pub(crate) card: String,
    /// State with its rank.
    pub(crate) state: (&'static str, i64),
    /// When the first was made, in milliseconds, and how long after it each next one was.
    pub(crate) since: i64,
    pub(crate) step: i64,
}

/// Id of message `number`.
pub(crate) fn message_id(number: u64) -> String {
    format!("msg_{PAST}{number:010}")
}

/// Vendor's id of the message with that number.
pub(crate) fn provider_id(number: u64) -> String {
    format!("wamid.HBgLNzkxNjA{:010}{number:010}", u128::from(number) * 2_654_435_761 % 9_999_999_967)
}

/// An id of portal or channel `index`, as an expression.
pub(crate) fn home(prefix: &str, index: &str) -> String {
    format!("'{prefix}_{PAST}' || substr(CAST(10000000000 + {index} AS TEXT), 2)")
}

/// The address of the person that row `n.i` is about, as an expression: one of two million.
fn peer() -> String {
    "'79' || substr(CAST(1000000000 + (n.i * 7919) % 2000003 AS TEXT), 2)".to_owned()
}

impl Lot {
    /// Writes commands and messages.
    pub(crate) async fn write(&self, store: &Store) {
        let (from, to, since, step) = (self.from, self.to, self.since, self.step);
        let at = format!("{since} + n.i * {step}");
        let id = body(NUMBER);
        let scattered = scattered();
        store
            .generate(
                from,
                to,
                "commands (id, portal_id, dedupe_key, payload, state, wait_rank, answer_by_ms, in_time, planned, \
                 received_ms, changed_ms)",
                &format!(
                    "'cmd_' || {id}, {portal}, '6a4d1c0f' || {scattered} || '.' || {NUMBER} || '|A70120_33921_55810_90112|k', \
                     '{{\"id\":\"cmd_' || {id} || '\",\"portal\":\"' || {portal} || '\",\"dedupe_key\":\"6a4d1c0f' || {scattered} || \
                     '\",\"card\":{{\"kind\":\"deal\",\"id\":' || CAST(n.i AS TEXT) || '}},\"comment\":true,\"body\":{{\"send_message\":\
                     {{\"line\":null,\"contact\":{{\"given\":{{\"phones\":[\"+7 916 123-45-67\"]}}}},\"text\":\"Ваш заказ готов и ждёт вас \
                     в пункте выдачи на Лесной, 7; мы открыты до девяти вечера\"}}}}}}', \
                     'closed', -1, NULL, 1, 1, {at}, {at}",
                    portal = self.portal
                ),
            )
            .await;
        let reached = |rank: i64| if self.state.1 >= rank { at.clone() } else { "NULL".to_owned() };
        let vendor = if self.state.1 >= 2 { vendor_id() } else { "NULL".to_owned() };
        store
            .generate(
                from,
                to,
                "messages (id, inbound, channel_id, peer, portal_id, command_id, card, comments, comment_id, responsible, \
                 content, used_fallback, state, rank, provider_id, created_ms, accepted_ms, sent_ms, delivered_ms, read_ms, \
                 changed_ms)",
                &format!(
                    "'msg_' || {id}, 0, {channel}, {peer}, {portal}, 'cmd_' || {id}, {card}, 1, {comment}, '1', \
                     '{{\"content\":{{\"kind\":\"text\",\"body\":\"Ваш заказ ' || {NUMBER} || ' готов и ждёт вас в пункте выдачи на \
                     Лесной, 7; мы открыты до девяти вечера\"}}}}', 0, '{state}', {rank}, {vendor}, {at}, {accepted}, {sent}, \
                     {delivered}, {read}, {at}",
                    channel = self.channel,
                    peer = peer(),
                    portal = self.portal,
                    card = self.card,
                    comment = if self.state.1 >= 5 { "CAST(n.i AS TEXT)" } else { "NULL" },
                    state = self.state.0,
                    rank = self.state.1,
                    accepted = reached(2),
                    sent = reached(3),
                    delivered = reached(4),
                    read = reached(5),
                ),
            )
            .await;
    }

    /// Writes a send for every message, due since it was made.
    pub(crate) async fn sends(&self, store: &Store) {
        let id = body(NUMBER);
        let at = format!("{} + n.i * {}", self.since, self.step);
        store
            .generate(
                self.from,
                self.to,
                "jobs (id, queue, lane, kind, subject, seq, state, revision, tries, due_ms, not_after_ms, changed_ms)",
                &format!(
                    "'send:msg_' || {id}, 'out:' || {}, 'lane' || {NUMBER}, 'send', 'msg_' || {id}, {id}, 'ready', 0, 0, {at}, \
                     {at} + 86400000, {at}",
                    self.channel
                ),
            )
            .await;
    }

    /// Writes what else finished messages leave: tries, people, idempotency keys, guards, and one dead letter of a
    /// thousand. Gives the number of rows.
    pub(crate) async fn traces(&self, store: &Store) {
        let (from, to) = (self.from, self.to);
        let id = body(NUMBER);
        let at = format!("{} + n.i * {}", self.since, self.step);
        let one_of = |share: u64| (from.div_ceil(share), to.div_ceil(share));
        let of = |share: u64, text: &str| text.replace("n.i", &format!("(n.i * {share})"));
        store
            .generate(
                from,
                to,
                "attempts (id, job_id, message_id, at_ms, duration_ms, outcome, raw)",
                &format!(
                    "'att_' || {id}, 'send:msg_' || {id}, 'msg_' || {id}, {at}, 40, 'ok', '{{\"messaging_product\":\"whatsapp\"}}'"
                ),
            )
            .await;
        let (some, end) = one_of(5);
        let person = of(5, &format!("{}, {}, 'Анна', {at}, {at}", self.channel, peer()));
        store.generate(some, end, "dialogs (channel_id, peer, name, last_inbound_ms, changed_ms)", &person).await;
        let (some, end) = one_of(10);
        for (into, columns) in [
            (
                "api_requests (key, fingerprint, message_id, created_ms)",
                format!("{} || {NUMBER}, {id}, 'msg_' || {id}, {at}", scattered()),
            ),
            ("sent_texts (mark, message_id, sent_ms)", format!("{} || {NUMBER}, 'msg_' || {id}, {at}", scattered())),
            ("robot_turns (key, command_id, given_ms)", format!("{} || {NUMBER}, 'cmd_' || {id}, {at}", scattered())),
        ] {
            store.generate(some, end, into, &of(10, &columns)).await;
        }
        let (some, end) = one_of(1000);
        let dead = format!(
            "'send:msg_' || {id}, 'out:' || {}, {}, 'send', 'msg_' || {id}, {id}, 'dead', 0, 6, {at}, {at}, \
             'its time was over', {at}",
            self.channel,
            peer()
        );
        let columns = "jobs (id, queue, lane, kind, subject, seq, state, revision, tries, due_ms, not_after_ms, reason, changed_ms)";
        store.generate(some, end, columns, &of(1000, &dead)).await;
    }
}

/// The vendor's id of row `n.i`, as an expression.
fn vendor_id() -> String {
    format!("'wamid.HBgLNzkxNjA' || {} || {NUMBER}", scattered())
}

/// Rows that a lot with its traces has per message.
pub(crate) const ROWS_PER_MESSAGE: f64 = 3.501;

/// A number of lines, channels and portals whose application was removed: they own history and ask for nothing.
pub(crate) async fn homes(store: &Store, count: u64, now: i64) {
    let index = "n.i";
    let (portal, channel, line) = (home("prt", index), home("chan", index), home("line", index));
    store
        .generate(
            0,
            count,
            "portals (id, crm, app, member_id, domain, client_endpoint, server_endpoint, language, state, state_reason, \
             installed_ms, changed_ms)",
            &format!(
                "{portal}, 'bitrix24', 'main', 'm' || {}, 'b24-' || {} || '.bitrix24.ru', 'https://b24.bitrix24.ru/rest/', \
                 'https://oauth.bitrix.info/rest/', 'ru', 'uninstalled', '', {now}, {now}",
                body(NUMBER),
                body(NUMBER)
            ),
        )
        .await;
    store.generate(0, count, "lines (id, name, created_ms)", &format!("{line}, 'Продажи', {now}")).await;
    store
        .generate(
            0,
            count,
            "channels (id, line_id, provider, name, credentials, settings, state, state_reason, created_ms, changed_ms)",
            &format!(
                "{channel}, {line}, 'whatsapp_cloud', '+7 495', 's1.none', '{{}}', 'active', '', {now}, {now}"
            ),
        )
        .await;
    for queue in [format!("'crm:' || {portal}"), format!("'in:' || {portal}"), format!("'out:' || {channel}")] {
        store.generate(0, count, "queues (key)", &queue).await;
    }
}
