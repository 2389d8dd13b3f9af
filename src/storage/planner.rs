//! What PostgreSQL's planner believes of tables that grow all at once.

use super::db::{Db, args};
use super::{Storage, StorageError, sql};

/// Tables that may be empty in the morning and hold a hundred thousand rows at noon, and the words that have one looked at.
const TABLES: &[(&str, &str)] =
    &[("commands", "ANALYZE commands"), ("jobs", "ANALYZE jobs"), ("messages", "ANALYZE messages")];

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
            let mut tx = self.db.begin_patiently().await?;
            tx.exec(look, args![]).await?;
            tx.commit().await?;
            looked_at.push(*table);
        }
        Ok(looked_at)
    }
}
