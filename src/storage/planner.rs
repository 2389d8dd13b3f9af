//! What PostgreSQL must be told of tables whose rows change often: how many there are, and that they need room.

use sqlx::{Executor as _, PgPool};

use super::db::{Db, args};
use super::{Storage, StorageError, sql};

/// Tables that may be empty in the morning and hold a hundred thousand rows at noon, and the words that have one looked at.
const TABLES: &[(&str, &str)] =
    &[("commands", "ANALYZE commands"), ("jobs", "ANALYZE jobs"), ("messages", "ANALYZE messages")];

/// The same tables, and the words that have PostgreSQL leave room for new versions of a row on the page of the old one.
const ROOM: &[(&str, &str)] = &[
    ("commands", "ALTER TABLE commands SET (fillfactor = 70)"),
    ("jobs", "ALTER TABLE jobs SET (fillfactor = 50)"),
    ("messages", "ALTER TABLE messages SET (fillfactor = 60)"),
];

/// Has PostgreSQL leave room in the pages of tables whose rows change a few times within moments of their making: a version
/// that finds room beside the old one needs no new entry in any index. Tables that an administrator has set up stay as they
/// are.
///
/// # Errors
/// [`StorageError`].
pub(super) async fn leave_room(pool: &PgPool) -> Result<(), StorageError> {
    for (table, words) in ROOM {
        let plain = sqlx::query(sql::TABLE_IS_PLAIN).bind(table);
        if pool.fetch_optional(plain).await?.is_some() {
            pool.execute(*words).await?;
        }
    }
    Ok(())
}

impl Storage {
    /// Has PostgreSQL look again at tables that hold far more rows than when it last looked. It keeps the plans of prepared
    /// statements until then, which is a minute: what is quickest with ten jobs compares all with all, and takes seconds a
    /// statement with 25,000. Gives the names of these tables; always none on SQLite, which plans without counting.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn look_at_grown_tables(&self) -> Result<Vec<&'static str>, StorageError> {
        if matches!(self.db, Db::Sqlite { .. }) {
            return Ok(Vec::new());
        }
        let rows = self.db.rows(sql::TABLES_GROWN, args![]).await?;
        let names = rows.iter().map(|row| row.text("name")).collect::<Result<Vec<_>, _>>()?;
        let mut looked_at = Vec::new();
        for (table, look) in TABLES.iter().filter(|(table, _)| names.iter().any(|name| name == table)) {
            self.db.write(look, args![]).await?;
            looked_at.push(*table);
        }
        Ok(looked_at)
    }
}
