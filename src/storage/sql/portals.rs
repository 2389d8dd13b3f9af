//! Statements of portals and of what stands in them.

statements! {
    /// A portal by what the CRM calls it.
    PORTAL_BY_MEMBER = "SELECT id, crm, app, member_id, domain, client_endpoint, server_endpoint, application_token,
            language, state, state_reason FROM portals WHERE crm = $1 AND app = $2 AND member_id = $3";
    /// One portal.
    PORTAL_GET = "SELECT id, crm, app, member_id, domain, client_endpoint, server_endpoint, application_token,
            language, state, state_reason FROM portals WHERE id = $1";
    /// Portals in order of installation, a page at a time.
    PORTALS = "SELECT id, crm, app, member_id, domain, client_endpoint, server_endpoint, application_token,
            language, state, state_reason FROM portals WHERE id > $1 ORDER BY id LIMIT $2";
    /// Installs a portal, or brings an installed one up to date; not if it was removed after `$11`.
    PORTAL_UPSERT = "INSERT INTO portals (id, crm, app, member_id, domain, client_endpoint, server_endpoint,
            application_token, language, state, state_reason, installed_ms, changed_ms)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'installed', '', $10, $10)
        ON CONFLICT (crm, app, member_id) DO UPDATE SET domain = excluded.domain,
            client_endpoint = excluded.client_endpoint, server_endpoint = excluded.server_endpoint,
            application_token = COALESCE(excluded.application_token, portals.application_token),
            language = excluded.language, state = 'installed', state_reason = '', changed_ms = excluded.changed_ms
        WHERE portals.state <> 'uninstalled' OR portals.changed_ms < $11
        RETURNING id";
    /// The portal can or cannot be talked to.
    PORTAL_STATE = "UPDATE portals SET state = $2, state_reason = $3, changed_ms = $4 WHERE id = $1
        AND (state <> 'uninstalled' OR $2 = 'uninstalled')";
    /// A portal whose tokens had died has living ones again.
    PORTAL_REVIVE = "UPDATE portals SET state = 'installed', state_reason = '', changed_ms = $2
        WHERE id = $1 AND state = 'needs_auth' RETURNING id";
    /// Portals whose tokens have died.
    PORTALS_NEEDING_AUTH = "SELECT id FROM portals WHERE state = 'needs_auth'";
    /// The portal was renamed.
    PORTAL_ENDPOINT = "UPDATE portals SET domain = $2, client_endpoint = $3, changed_ms = $4 WHERE id = $1";
    /// The portal's word, unless it has one.
    PORTAL_WORD = "UPDATE portals SET application_token = $2 WHERE id = $1 AND application_token IS NULL";
    /// What is left of a removed portal is not used again.
    PORTAL_FORGET_TOKEN = "UPDATE portals SET application_token = NULL WHERE id = $1";
    /// Living tokens, best first.
    TOKENS = "SELECT user_id, is_admin, pair, expires_ms FROM portal_tokens
        WHERE portal_id = $1 AND dead = 0 ORDER BY is_admin DESC, expires_ms DESC";
    /// A new pair; the one before stays beside it.
    TOKEN_SAVE = "INSERT INTO portal_tokens (portal_id, user_id, is_admin, pair, before, expires_ms, obtained_ms, dead)
        VALUES ($1, $2, $3, $4, NULL, $5, $6, 0)
        ON CONFLICT (portal_id, user_id) DO UPDATE SET before = portal_tokens.pair, pair = excluded.pair,
            is_admin = CASE WHEN excluded.is_admin = 1 THEN 1 ELSE portal_tokens.is_admin END, expires_ms = excluded.expires_ms, obtained_ms = excluded.obtained_ms, dead = 0";
    /// One user's pair, dead or alive.
    TOKEN_GET = "SELECT pair FROM portal_tokens WHERE portal_id = $1 AND user_id = $2 AND dead = 0";
    /// A pair is dead, unless it was replaced since it was read.
    TOKEN_DROP = "UPDATE portal_tokens SET dead = 1 WHERE portal_id = $1 AND user_id = $2 AND pair = $3";
    /// Every pair of a portal is gone.
    TOKENS_FORGET = "DELETE FROM portal_tokens WHERE portal_id = $1";
    /// Deletes the jobs of a queue.
    CLEAN_JOBS_OF_QUEUE = "DELETE FROM jobs WHERE queue = $1";
    /// Deletes the sends of a portal's messages.
    CLEAN_SENDS = "DELETE FROM jobs WHERE id IN (SELECT 'send:' || m.id FROM messages m
        JOIN commands c ON c.id = m.command_id WHERE c.portal_id = $1)";
    /// Deletes what was noted of sending a portal's messages.
    CLEAN_ATTEMPTS = "DELETE FROM attempts WHERE message_id IN (SELECT m.id FROM messages m
        JOIN commands c ON c.id = m.command_id WHERE c.portal_id = $1)";
    /// Deletes which of a portal's texts went to whom.
    CLEAN_SENT_TEXTS = "DELETE FROM sent_texts WHERE message_id IN (SELECT m.id FROM messages m
        JOIN commands c ON c.id = m.command_id WHERE c.portal_id = $1)";
    /// Deletes which robot of a portal spoke last.
    CLEAN_ROBOT_TURNS = "DELETE FROM robot_turns WHERE command_id IN (SELECT id FROM commands WHERE portal_id = $1)";
    /// Deletes a portal's messages.
    CLEAN_MESSAGES = "DELETE FROM messages WHERE command_id IN (SELECT id FROM commands WHERE portal_id = $1)";
    /// Deletes which dialogs have a chat in a portal.
    CLEAN_CHATS = "DELETE FROM chats WHERE portal_id = $1";
    /// Deletes where chats stand in a portal.
    CLEAN_CHAT_LINES = "DELETE FROM chat_lines WHERE portal_id = $1";
    /// Deletes a portal's commands.
    CLEAN_COMMANDS = "DELETE FROM commands WHERE portal_id = $1";
    /// What was registered last.
    REGISTRATIONS = "SELECT key, fingerprint FROM registrations WHERE portal_id = $1";
    /// Remembers a registration.
    REGISTRATION_SAVE = "INSERT INTO registrations (portal_id, key, fingerprint) VALUES ($1, $2, $3)
        ON CONFLICT (portal_id, key) DO UPDATE SET fingerprint = excluded.fingerprint";
    /// Forgets a registration.
    REGISTRATION_DROP = "DELETE FROM registrations WHERE portal_id = $1 AND key = $2";
    /// Forgets them all (the CRM has).
    REGISTRATIONS_FORGET = "DELETE FROM registrations WHERE portal_id = $1";
    /// Binds a line to a portal.
    BIND = "INSERT INTO portal_lines (portal_id, line_id, bound_ms) VALUES ($1, $2, $3)
        ON CONFLICT (portal_id, line_id) DO NOTHING";
    /// Unbinds it.
    UNBIND = "DELETE FROM portal_lines WHERE portal_id = $1 AND line_id = $2";
    /// Lines bound to a portal.
    LINES_OF_PORTAL = "SELECT l.id, l.name, l.settings FROM portal_lines p JOIN lines l ON l.id = p.line_id
        WHERE p.portal_id = $1 ORDER BY l.id";
}
