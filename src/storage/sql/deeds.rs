//! Statements of what actions do that is no message.

use super::Batch;

batches! {
    /// Deeds that were done when they were stored: nothing more is awaited of them.
    DEEDS_DONE["ti"] = "WITH v(id, now_ms) AS (VALUES {rows})
        UPDATE messages SET sent_ms = v.now_ms, silence = 'closed', awaited = 0 FROM v WHERE messages.id = v.id";
    /// Tags are put on.
    TAGS_ADD["ttti"] = "INSERT INTO dialog_tags (channel_id, peer, tag, set_ms) VALUES {rows}
        ON CONFLICT (channel_id, peer, tag) DO NOTHING";
    /// Tags are taken off.
    TAGS_DROP["ttt"] = "DELETE FROM dialog_tags WHERE (channel_id, peer, tag) IN (SELECT t.channel_id, t.peer, t.tag
            FROM (VALUES {rows}) AS v JOIN dialog_tags t
            ON t.channel_id = v.column1 AND t.peer = v.column2 AND t.tag = v.column3)";
    /// The tags of dialogs.
    TAGS_FIND["tt"] = "WITH v(channel_id, peer) AS (VALUES {rows})
        SELECT DISTINCT t.channel_id, t.peer, t.tag FROM v
        JOIN dialog_tags t ON t.channel_id = v.channel_id AND t.peer = v.peer";
    /// The chats of dialogs in a portal.
    CHATS_IN["ttt"] = "WITH v(portal_id, channel_id, peer) AS (VALUES {rows})
        SELECT DISTINCT h.channel_id, h.peer, h.messenger, h.place FROM v
        JOIN chats h ON h.channel_id = v.channel_id AND h.peer = v.peer AND h.portal_id = v.portal_id";
    /// What our traffic with addresses tells of them. `notice` is what the notice of a number that was left is stored as.
    PHONE_TRAFFIC["ttt"] = "WITH v(channel_id, peer, notice) AS (VALUES {rows})
        SELECT v.channel_id, v.peer,
            MAX(CASE WHEN m.inbound = 1 AND m.content <> v.notice THEN COALESCE(m.sent_ms, m.created_ms) END) AS wrote_ms,
            MAX(CASE WHEN m.inbound = 0 THEN COALESCE(m.read_ms, m.delivered_ms) END) AS delivered_ms,
            MAX(CASE WHEN m.inbound = 0 AND m.error_code = 'not_on_messenger' THEN m.failed_ms END) AS not_reached_ms,
            MAX(CASE WHEN m.inbound = 1 AND m.content = v.notice THEN COALESCE(m.sent_ms, m.created_ms) END) AS left_ms
        FROM v JOIN messages m ON m.peer = v.peer AND m.channel_id = v.channel_id
        GROUP BY v.channel_id, v.peer";
}
