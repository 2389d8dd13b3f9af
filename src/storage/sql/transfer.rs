//! Statements of the move from SQLite to PostgreSQL. Which tables and columns there are is read from the databases
//! themselves, so these are written when they are needed; each is for one of the two.

/// SQLite: its tables, without those of SQLite and of the migrator.
pub(in crate::storage) const SQLITE_TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table'
    AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_sqlx\\_%' ESCAPE '\\' ORDER BY name";
/// SQLite: the columns of a table and their types.
pub(in crate::storage) const SQLITE_COLUMNS: &str = "SELECT name, type FROM pragma_table_info(?1) ORDER BY cid";
/// SQLite: the tables that must have their rows before this one.
pub(in crate::storage) const SQLITE_PARENTS: &str = "SELECT DISTINCT \"table\" FROM pragma_foreign_key_list(?1)";
/// PostgreSQL: the columns of all tables, without those of the migrator.
pub(in crate::storage) const POSTGRES_COLUMNS: &str = "SELECT c.table_name::text, c.column_name::text
    FROM information_schema.columns c JOIN information_schema.tables t
      ON t.table_schema = c.table_schema AND t.table_name = c.table_name
    WHERE c.table_schema = current_schema() AND t.table_type = 'BASE TABLE' AND c.table_name NOT LIKE '\\_sqlx\\_%'";
/// PostgreSQL: somebody who works in the target is not waited for long; a large table is, and so is the source between two
/// of its pages.
pub(in crate::storage) const PATIENCE: &str =
    "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";

fn list(columns: &[String]) -> String {
    columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ")
}

/// Either: how many rows a table has.
pub(in crate::storage) fn count(table: &str) -> String {
    format!("SELECT COUNT(*) FROM \"{table}\"")
}

/// Either: every row of a table.
pub(in crate::storage) fn read(table: &str, columns: &[String]) -> String {
    format!("SELECT {} FROM \"{table}\"", list(columns))
}

/// PostgreSQL: nobody else reads or writes these tables until the end of the transaction.
pub(in crate::storage) fn lock(tables: &[String]) -> String {
    format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", list(tables))
}

/// PostgreSQL: many rows, one array per column; `kinds` are the columns' types.
pub(in crate::storage) fn write(table: &str, columns: &[String], kinds: &[&str]) -> String {
    let arrays: Vec<String> =
        kinds.iter().enumerate().map(|(index, kind)| format!("${}::{kind}[]", index + 1)).collect();
    format!("INSERT INTO \"{table}\" ({}) SELECT * FROM UNNEST({})", list(columns), arrays.join(", "))
}

/// SQLite: a consistent copy of the whole database in a file that is empty.
pub(in crate::storage) const COPY_INTO: &str = "VACUUM INTO ?1";
/// SQLite: what is broken in a file; `ok` when nothing is.
pub(in crate::storage) const CHECK: &str = "PRAGMA quick_check(1)";
