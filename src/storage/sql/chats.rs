//! Statements of chats in a CRM.

use super::Batch;

statements! {
    /// Another portal, in which the application still is, has the chats of this line and messenger.
    CHAT_LINE_ELSEWHERE = "SELECT 1 AS one FROM chat_lines l JOIN portals p ON p.id = l.portal_id
        WHERE l.line_id = $1 AND l.messenger = $2 AND l.portal_id <> $3 AND p.state <> 'uninstalled'";
    /// The chats of this line and messenger stand nowhere else from now on.
    CHAT_LINE_MOVE_AWAY = "DELETE FROM chat_lines WHERE line_id = $1 AND messenger = $2
        AND (portal_id <> $3 OR place <> $4)";
    /// The chats of a line stand in this place.
    CHAT_LINE_PUT = "INSERT INTO chat_lines (portal_id, messenger, place, line_id, changed_ms) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (portal_id, messenger, place) DO UPDATE SET line_id = excluded.line_id,
            changed_ms = excluded.changed_ms";
    /// A messenger's chats stand in this place no more.
    CHAT_LINE_DROP = "DELETE FROM chat_lines WHERE portal_id = $1 AND messenger = $2 AND place = $3";
    /// The place is gone.
    CHAT_PLACE_DROP = "DELETE FROM chat_lines WHERE portal_id = $1 AND place = $2";
    /// Where chats stand in a portal.
    CHAT_LINES_OF_PORTAL = "SELECT portal_id, messenger, place, line_id FROM chat_lines WHERE portal_id = $1
        ORDER BY messenger, place";
    /// Where the chats of a line and messenger stand.
    CHAT_LINE_OF_LINE = "SELECT l.portal_id, l.messenger, l.place, l.line_id FROM chat_lines l
        JOIN portals p ON p.id = l.portal_id
        WHERE l.line_id = $1 AND l.messenger = $2 AND p.state <> 'uninstalled'";
}

batches! {
    /// Dialogs get their chats where their line's chats stand; a chat that moved has a new number there.
    CHATS_OPEN["ttti"] = "WITH v(channel_id, peer, messenger, now_ms) AS (VALUES {rows})
        INSERT INTO chats (channel_id, peer, portal_id, messenger, place, crm_chat, changed_ms)
        SELECT v.channel_id, v.peer, l.portal_id, l.messenger, l.place, '', v.now_ms
        FROM v JOIN channels c ON c.id = v.channel_id
        JOIN chat_lines l ON l.line_id = c.line_id AND l.messenger = v.messenger
        JOIN portals p ON p.id = l.portal_id
        WHERE p.state <> 'uninstalled'
        ON CONFLICT (channel_id, peer) DO UPDATE SET
            crm_chat = CASE WHEN chats.portal_id = excluded.portal_id AND chats.place = excluded.place
                THEN chats.crm_chat ELSE '' END,
            crm_person = CASE WHEN chats.portal_id = excluded.portal_id AND chats.place = excluded.place
                THEN chats.crm_person ELSE '' END,
            portal_id = excluded.portal_id, messenger = excluded.messenger, place = excluded.place,
            changed_ms = excluded.changed_ms
        RETURNING channel_id, peer, portal_id";
    /// What clients wrote, with their chats.
    CHAT_POSTS["t"] = "WITH v(id) AS (VALUES {rows})
        SELECT m.id, m.channel_id, m.peer, m.content, m.provider_id, COALESCE(m.sent_ms, m.created_ms) AS at_ms,
            COALESCE(d.name, '') AS name, h.messenger, h.place, h.crm_chat,
            h.crm_person
        FROM v JOIN messages m ON m.id = v.id AND m.inbound = 1
        JOIN chats h ON h.channel_id = m.channel_id AND h.peer = m.peer
        LEFT JOIN dialogs d ON d.channel_id = m.channel_id AND d.peer = m.peer";
    /// What messages say, by the vendor's id.
    CHAT_QUOTES["tt"] = "WITH v(channel_id, provider_id) AS (VALUES {rows})
        SELECT m.channel_id, m.provider_id, m.inbound, m.content FROM v
        JOIN messages m ON m.provider_id = v.provider_id AND m.channel_id = v.channel_id";
    /// The CRM's numbers of chats.
    CHATS_NUMBER["ttt"] = "WITH v(channel_id, peer, crm_chat) AS (VALUES {rows})
        UPDATE chats SET crm_chat = v.crm_chat FROM v
        WHERE chats.channel_id = v.channel_id AND chats.peer = v.peer AND chats.crm_chat <> v.crm_chat";
    /// Chats of people who have been silent are forgotten; the CRM finds them again by their names.
    CHATS_DELETE["ti"] = "DELETE FROM chats WHERE (channel_id, peer) IN (SELECT h.channel_id, h.peer
            FROM (VALUES {rows}) AS v JOIN chats h ON h.peer = v.column1 AND h.changed_ms < v.column2)";
}
