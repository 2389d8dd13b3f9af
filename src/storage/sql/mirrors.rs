//! Statements of messages that went past their chats.

use super::Batch;

statements! {
    /// What may come back from a chat with these words of this author, raised at `$6` or before.
    CHAT_MIRRORS_LIKE = "SELECT message_id, calls, heard, echoes FROM chat_mirrors
        WHERE channel_id = $1 AND peer = $2 AND print = $3 AND portal_id = $4 AND author = $5 AND calls > 0
          AND until_ms >= $6 ORDER BY asked_ms, message_id";
    /// An echo of a message was heard, unless another was meanwhile.
    CHAT_MIRROR_HEARD = "UPDATE chat_mirrors SET heard = heard + 1, echoes = echoes || $3 || ','
        WHERE message_id = $1 AND heard = $2 AND heard < calls";
    /// The CRM does not take this author, and has shown nothing.
    CHAT_MIRROR_REFUSED = "UPDATE chat_mirrors SET refused = author, author = '',
            calls = CASE WHEN calls > heard THEN calls - 1 ELSE calls END
        WHERE message_id = $1 AND author = $2";
    /// Deletes what was shown in a portal's chats.
    CLEAN_CHAT_MIRRORS = "DELETE FROM chat_mirrors WHERE portal_id = $1";
    /// Messages past chats, of which nothing is under way.
    OLD_CHAT_MIRRORS = "SELECT r.message_id AS key, r.asked_ms AS at_ms,
            CAST(CASE WHEN r.asked_ms < $2 AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = 'chat:' || r.message_id)
                THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM chat_mirrors r WHERE r.message_id > $1 ORDER BY r.message_id LIMIT $3";
}

batches! {
    /// Messages that have just left are shown where their dialogs have a chat; not those that operators wrote in it, whose
    /// commands have such keys. Only once for each.
    CHAT_MIRRORS_ASK["tttti"] = "WITH v(message_id, channel_id, peer, command_id, now_ms) AS (VALUES {rows})
        INSERT INTO chat_mirrors (message_id, channel_id, peer, portal_id, author, print, calls, heard, echoes, until_ms,
            asked_ms)
        SELECT v.message_id, h.channel_id, h.peer, h.portal_id, '', '', 0, 0, ',', 0, v.now_ms
        FROM v JOIN chats h ON h.channel_id = v.channel_id AND h.peer = v.peer
        JOIN channels c ON c.id = v.channel_id
        JOIN chat_lines l ON l.line_id = c.line_id AND l.messenger = h.messenger AND l.portal_id = h.portal_id
            AND l.place = h.place
        JOIN portals p ON p.id = h.portal_id
        WHERE p.state <> 'uninstalled' AND NOT EXISTS (SELECT 1 FROM commands k
            WHERE k.id = v.command_id AND substr(k.dedupe_key, 1, 5) = 'chat:')
        ON CONFLICT (message_id) DO NOTHING RETURNING message_id, channel_id, peer, portal_id";
    /// Messages past chats, with their chats.
    CHAT_MIRRORS["t"] = "WITH v(id) AS (VALUES {rows})
        SELECT m.id, m.channel_id, m.peer, m.content, m.command_id, m.responsible, m.provider_id,
            COALESCE(m.accepted_ms, m.sent_ms, m.created_ms) AS at_ms, COALESCE(d.name, '') AS name,
            h.messenger, h.place, h.crm_chat, h.crm_person, r.author, r.refused
        FROM v JOIN chat_mirrors r ON r.message_id = v.id
        JOIN messages m ON m.id = v.id
        JOIN chats h ON h.channel_id = m.channel_id AND h.peer = m.peer
        LEFT JOIN dialogs d ON d.channel_id = m.channel_id AND d.peer = m.peer";
    /// They are about to be shown.
    CHAT_MIRRORS_BEGIN["ttti"] = "WITH v(message_id, author, print, until_ms) AS (VALUES {rows})
        UPDATE chat_mirrors SET author = v.author, print = v.print, until_ms = v.until_ms, calls = chat_mirrors.calls + 1
        FROM v WHERE chat_mirrors.message_id = v.message_id";
    /// They go.
    CHAT_MIRRORS_DELETE["ti"] = "DELETE FROM chat_mirrors WHERE message_id IN (SELECT r.message_id
            FROM (VALUES {rows}) AS v JOIN chat_mirrors r ON r.message_id = v.column1 AND r.asked_ms < v.column2
            WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id = 'chat:' || r.message_id))";
}
