//! Statements of what operators did to messages written earlier.

use super::Batch;

statements! {
    /// A change takes the turn of its message, unless a later one or a deletion has it. Its own turn it keeps.
    CHAT_CHANGE_TAKE = "INSERT INTO chat_changes (key, portal_id, command_id, raised_ms, gone, changed_ms)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (key) DO UPDATE SET command_id = excluded.command_id, raised_ms = excluded.raised_ms,
            gone = excluded.gone, changed_ms = excluded.changed_ms
        WHERE chat_changes.command_id = excluded.command_id OR (chat_changes.gone = 0
            AND (excluded.gone = 1 OR chat_changes.raised_ms <= excluded.raised_ms))";
    /// A change that still has its message's turn.
    CHAT_CHANGE_STANDS = "SELECT 1 AS one FROM chat_changes WHERE command_id = $1";
    /// The command of a portal with this key.
    COMMAND_BY_KEY = "SELECT id FROM commands WHERE portal_id = $1 AND dedupe_key = $2";
    /// Deletes what was changed in a portal's chats.
    CLEAN_CHAT_CHANGES = "DELETE FROM chat_changes WHERE portal_id = $1";
    /// Changes of messages that nobody changes any more.
    OLD_CHAT_CHANGES = "SELECT h.key, h.changed_ms AS at_ms,
            CAST(CASE WHEN h.changed_ms < $2 THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM chat_changes h WHERE h.key > $1 ORDER BY h.key LIMIT $3";
}

batches! {
    /// They go.
    CHAT_CHANGES_DELETE["ti"] = "DELETE FROM chat_changes WHERE key IN (SELECT h.key FROM (VALUES {rows}) AS v
            JOIN chat_changes h ON h.key = v.column1 AND h.changed_ms < v.column2)";
}
