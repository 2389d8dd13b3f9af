//! Statements of operators' messages in trouble.

use super::Batch;

batches! {
    /// Which of these messages operators wrote in a chat: their commands have such keys.
    CHAT_TROUBLES["tttt"] = "WITH v(message_id, channel_id, peer, command_id) AS (VALUES {rows})
        SELECT v.message_id, v.channel_id, v.peer, k.portal_id, p.crm FROM v
        JOIN commands k ON k.id = v.command_id AND substr(k.dedupe_key, 1, 5) = 'chat:'
        JOIN portals p ON p.id = k.portal_id";
}
