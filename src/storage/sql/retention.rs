//! Statements of retention.

use super::Batch;

statements! {
    // --- retention: pages behind the key `$1`, and what of them is due at `$2` --------------------------------------
    /// Tries.
    OLD_ATTEMPTS = "SELECT a.id AS key, a.at_ms, CAST(CASE WHEN a.at_ms < $2 THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM attempts a WHERE a.id > $1 ORDER BY a.id LIMIT $3";
    /// Dead letters.
    OLD_DEAD_LETTERS = "SELECT j.id AS key, j.changed_ms AS at_ms, CAST(1 AS BIGINT) AS due FROM jobs j
        WHERE j.state = 'dead' AND j.id > $1 AND j.changed_ms < $2 ORDER BY j.id LIMIT $3";
    /// Messages.
    OLD_MESSAGES = concat!("SELECT m.id AS key, m.created_ms AS at_ms,
            CAST(CASE WHEN m.created_ms < $2 AND ", message_is_over!(), " THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM messages m WHERE m.id > $1 ORDER BY m.id LIMIT $3");
    /// Messages that still say what was written to whom.
    OLD_MESSAGE_BODIES = concat!("SELECT m.id AS key, m.created_ms AS at_ms,
            CAST(CASE WHEN m.created_ms < $2 AND m.peer <> '' AND ", message_is_over!(), " THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM messages m WHERE m.id > $1 ORDER BY m.id LIMIT $3");
    /// Commands that no message belongs to any more.
    OLD_COMMANDS = concat!("SELECT c.id AS key, c.received_ms AS at_ms,
            CAST(CASE WHEN c.received_ms < $2 AND ", command_is_over!(), "
                AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.command_id = c.id) THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM commands c WHERE c.id > $1 ORDER BY c.id LIMIT $3");
    /// Commands that still say what was asked for.
    OLD_COMMAND_BODIES = concat!("SELECT c.id AS key, c.received_ms AS at_ms,
            CAST(CASE WHEN c.received_ms < $2 AND c.payload <> '' AND ", command_is_over!(), " THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM commands c WHERE c.id > $1 ORDER BY c.id LIMIT $3");
    /// People, by the last sign of life on any channel.
    OLD_DIALOGS = "SELECT d.peer AS key, MAX(d.changed_ms) AS at_ms,
            CAST(CASE WHEN MAX(d.changed_ms) < $2 THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM dialogs d WHERE d.peer > $1 GROUP BY d.peer ORDER BY d.peer LIMIT $3";
    /// Phones whose person has been forgotten.
    OLD_CHAT_PHONES = "SELECT p.phone AS key, MAX(p.shared_ms) AS at_ms,
            CAST(CASE WHEN MAX(p.shared_ms) < $2 THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM chat_phones p WHERE p.phone > $1 AND NOT EXISTS (SELECT 1 FROM dialogs d
            WHERE d.channel_id = p.channel_id AND d.peer = p.peer)
        GROUP BY p.phone ORDER BY p.phone LIMIT $3";
    /// Tags of people who have been forgotten.
    OLD_DIALOG_TAGS = "SELECT t.peer AS key, MAX(t.set_ms) AS at_ms,
            CAST(CASE WHEN MAX(t.set_ms) < $2 THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM dialog_tags t WHERE t.peer > $1 AND NOT EXISTS (SELECT 1 FROM dialogs d
            WHERE d.channel_id = t.channel_id AND d.peer = t.peer)
        GROUP BY t.peer ORDER BY t.peer LIMIT $3";
    /// Chats of people, by the last message shown in any.
    OLD_CHATS = "SELECT h.peer AS key, MAX(h.changed_ms) AS at_ms,
            CAST(CASE WHEN MAX(h.changed_ms) < $2 THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM chats h WHERE h.peer > $1 GROUP BY h.peer ORDER BY h.peer LIMIT $3";
    /// Idempotency keys.
    OLD_API_REQUESTS = "SELECT r.key, r.created_ms AS at_ms, CAST(CASE WHEN r.created_ms < $2 THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM api_requests r WHERE r.key > $1 ORDER BY r.key LIMIT $3";
}

batches! {
    // --- retention: `(key, before_ms)` --------------------------------------------------------------------------
    /// Tries go.
    ATTEMPTS_DELETE["ti"] = "DELETE FROM attempts WHERE id IN (SELECT a.id FROM (VALUES {rows}) AS v
            JOIN attempts a ON a.id = v.column1 AND a.at_ms < v.column2)";
    /// Dead letters go, unless they were redriven meanwhile.
    DEAD_LETTERS_DELETE["ti"] = "DELETE FROM jobs WHERE state = 'dead' AND id IN (SELECT j.id FROM (VALUES {rows}) AS v
            JOIN jobs j ON j.id = v.column1 AND j.changed_ms < v.column2)";
    /// Messages go.
    MESSAGES_DELETE["ti"] = concat!("DELETE FROM messages WHERE id IN (SELECT m.id FROM (VALUES {rows}) AS v
            JOIN messages m ON m.id = v.column1 AND m.created_ms < v.column2 WHERE ", message_is_over!(), ")");
    /// Messages forget what was written to whom. The vendor's id goes too (WhatsApp's is made of the phone), and no
    /// comment is brought up to date with a message that is blank.
    MESSAGES_BLANK["ti"] = concat!("UPDATE messages SET peer = '', comments = 0, provider_id = NULL, error_detail = NULL,
            content = CASE WHEN inbound = 1 THEN '{\"kind\":\"text\",\"body\":\"\"}'
                ELSE '{\"content\":{\"kind\":\"text\",\"body\":\"\"}}' END
        WHERE id IN (SELECT m.id FROM (VALUES {rows}) AS v
            JOIN messages m ON m.id = v.column1 AND m.created_ms < v.column2 WHERE ", message_is_over!(), ")");
    /// Commands go.
    COMMANDS_DELETE["ti"] = concat!("DELETE FROM commands WHERE id IN (SELECT c.id FROM (VALUES {rows}) AS v
            JOIN commands c ON c.id = v.column1 AND c.received_ms < v.column2 WHERE ", command_is_over!(), "
            AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.command_id = c.id))");
    /// Commands forget what was asked for.
    COMMANDS_BLANK["ti"] = concat!("UPDATE commands SET payload = '' WHERE id IN (SELECT c.id FROM (VALUES {rows}) AS v
            JOIN commands c ON c.id = v.column1 AND c.received_ms < v.column2 WHERE ", command_is_over!(), ")");
    /// People are forgotten who have been silent on every channel.
    DIALOGS_DELETE["ti"] = "DELETE FROM dialogs WHERE (channel_id, peer) IN (SELECT d.channel_id, d.peer
            FROM (VALUES {rows}) AS v JOIN dialogs d ON d.peer = v.column1 AND d.changed_ms < v.column2)";
    /// Phones go whose person has been forgotten.
    CHAT_PHONES_DELETE["ti"] = "DELETE FROM chat_phones WHERE (channel_id, phone) IN (SELECT p.channel_id, p.phone
            FROM (VALUES {rows}) AS v JOIN chat_phones p ON p.phone = v.column1 AND p.shared_ms < v.column2
            WHERE NOT EXISTS (SELECT 1 FROM dialogs d WHERE d.channel_id = p.channel_id AND d.peer = p.peer))";
    /// Tags go whose person has been forgotten.
    DIALOG_TAGS_DELETE["ti"] = "DELETE FROM dialog_tags WHERE (channel_id, peer, tag) IN (SELECT t.channel_id, t.peer, t.tag
            FROM (VALUES {rows}) AS v JOIN dialog_tags t ON t.peer = v.column1 AND t.set_ms < v.column2
            WHERE NOT EXISTS (SELECT 1 FROM dialogs d WHERE d.channel_id = t.channel_id AND d.peer = t.peer))";
    /// Idempotency keys go.
    API_REQUESTS_DELETE["ti"] = "DELETE FROM api_requests WHERE key IN (SELECT r.key FROM (VALUES {rows}) AS v
            JOIN api_requests r ON r.key = v.column1 AND r.created_ms < v.column2)";
}
