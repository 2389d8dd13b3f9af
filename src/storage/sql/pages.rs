//! Statements of the pages inside a CRM.

statements! {
    /// A portal has called.
    SIGN_PUT = "INSERT INTO portal_signs (portal_id, kind, at_ms) VALUES ($1, $2, $3)
        ON CONFLICT (portal_id, kind) DO UPDATE SET at_ms = excluded.at_ms WHERE portal_signs.at_ms < excluded.at_ms";
    /// When a portal last called.
    SIGNS_OF_PORTAL = "SELECT kind, at_ms FROM portal_signs WHERE portal_id = $1";
    /// When a portal last gave tokens that still live; NULL while it has none.
    TOKENS_OBTAINED = "SELECT MAX(obtained_ms) AS at_ms FROM portal_tokens
        WHERE portal_id = $1 AND dead = 0";
    /// Newest messages with one person on the channels of a portal's lines, without those of other portals.
    MESSAGES_WITH_PERSON = concat!("SELECT ", message_columns!(), ", m.inbound FROM messages m
        WHERE m.peer = $1 AND (m.portal_id IS NULL OR m.portal_id = $2)
          AND m.channel_id IN (SELECT c.id FROM portal_lines p JOIN channels c ON c.line_id = p.line_id
                               WHERE p.portal_id = $2)
        ORDER BY m.id DESC LIMIT $3");
    /// What the channels of a portal's lines know of one person.
    DIALOGS_WITH_PERSON = "SELECT d.channel_id, d.name, d.last_inbound_ms FROM dialogs d
        WHERE d.peer = $1 AND d.channel_id IN (SELECT c.id FROM portal_lines p JOIN channels c ON c.line_id = p.line_id
                                               WHERE p.portal_id = $2)";
    /// Whom people wrote to on a card's page.
    WRITTEN_TO_ON_CARD = "SELECT DISTINCT m.channel_id, m.peer FROM messages m
        WHERE m.portal_id = $1 AND m.card = $2 AND m.command_id IS NULL AND m.channel_id IS NOT NULL";
    /// Deletes the sends of messages written on a portal's pages.
    CLEAN_PAGE_SENDS = "DELETE FROM jobs WHERE id IN (SELECT 'send:' || m.id FROM messages m
        WHERE m.portal_id = $1 AND m.command_id IS NULL)";
    /// Deletes what was noted of sending them.
    CLEAN_PAGE_ATTEMPTS = "DELETE FROM attempts WHERE message_id IN (SELECT m.id FROM messages m
        WHERE m.portal_id = $1 AND m.command_id IS NULL)";
    /// Deletes them.
    CLEAN_PAGE_MESSAGES = "DELETE FROM messages WHERE portal_id = $1 AND command_id IS NULL";
    /// Deletes when a portal last called.
    CLEAN_SIGNS = "DELETE FROM portal_signs WHERE portal_id = $1";
}
