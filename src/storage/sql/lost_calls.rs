//! Statements of robots' calls that never came.

use super::Batch;

/// Columns of a lost call in the order `lost_calls::read` wants them.
macro_rules! lost_columns {
    () => {
        "l.id, l.card, l.stage, l.robot, l.entered_ms, l.found_ms, l.sure, l.state"
    };
}

statements! {
    /// Portals whose robots have called since `$1`, and what is wanted there; not those that want nothing.
    PORTALS_WITH_ROBOTS = "SELECT s.portal_id, COALESCE(r.mode, 'ask') AS mode FROM portal_signs s
        LEFT JOIN lost_call_rules r ON r.portal_id = s.portal_id
        WHERE s.kind = 'robot' AND s.at_ms >= $1 AND s.portal_id > $2 AND COALESCE(r.mode, 'ask') <> 'off'
        ORDER BY s.portal_id LIMIT $3";
    /// What is wanted in one portal.
    LOST_RULE = "SELECT mode FROM lost_call_rules WHERE portal_id = $1";
    /// Keeps it.
    LOST_RULE_PUT = "INSERT INTO lost_call_rules (portal_id, mode, changed_ms) VALUES ($1, $2, $3)
        ON CONFLICT (portal_id) DO UPDATE SET mode = excluded.mode, changed_ms = excluded.changed_ms";
    /// A portal's calls from `$2` on, a page behind the last one.
    CALLS_OF_PORTAL = "SELECT id, dedupe_key, payload, received_ms FROM commands
        WHERE portal_id = $1 AND received_ms >= $2 AND (received_ms > $2 OR id > $3)
        ORDER BY received_ms, id LIMIT $4";
    /// How far a portal's history has been read.
    LOOKS_OF_PORTAL = "SELECT kind, after_id, looked_ms, trouble FROM stage_looks WHERE portal_id = $1";
    /// It has been read up to here.
    LOOK_PUT = "INSERT INTO stage_looks (portal_id, kind, after_id, looked_ms, trouble) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (portal_id, kind) DO UPDATE SET after_id = excluded.after_id, looked_ms = excluded.looked_ms,
            trouble = excluded.trouble";
    /// What is known of robots on stages.
    STAGE_ROBOTS_OF_PORTAL = "SELECT kind, stage, robot, seen, skipped, command_id, card, print, same, seen_ms
        FROM stage_robots WHERE portal_id = $1";
    /// Lost calls, the oldest entries first.
    LOST_CALLS_LIST = concat!("SELECT ", lost_columns!(), " FROM lost_calls l
        WHERE l.portal_id = $1 AND ($2 = '' OR l.state = $2) AND l.id > $3 ORDER BY l.id LIMIT $4");
    /// How many nobody has decided about.
    LOST_CALLS_OPEN = "SELECT COUNT(*) AS n FROM lost_calls WHERE portal_id = $1 AND state = 'open'";
    /// Those that were surely lost: entered from `$2` on, found before `$3`.
    LOST_CALLS_READY = concat!("SELECT ", lost_columns!(), " FROM lost_calls l
        WHERE l.portal_id = $1 AND l.state = 'open' AND l.sure = 1 AND l.entered_ms >= $2 AND l.found_ms < $3
        ORDER BY l.found_ms LIMIT $4");
    /// Decides about one.
    LOST_CALL_DECIDE = "UPDATE lost_calls SET state = $3, changed_ms = $4
        WHERE portal_id = $1 AND id = $2 AND state = 'open'";
    /// The latest lost call of a robot for a card within a span of entries.
    LOST_CALL_OF_CARD = concat!("SELECT ", lost_columns!(), " FROM lost_calls l
        WHERE l.portal_id = $1 AND l.card = $2 AND l.robot = $3 AND l.entered_ms >= $4 AND l.entered_ms <= $5
        ORDER BY l.entered_ms DESC LIMIT 1");
    /// Whether a portal has lost calls whose ids, which begin with when their cards entered, stand behind `$2`.
    LOST_CALLS_ANY = "SELECT 1 AS one FROM lost_calls WHERE portal_id = $1 AND id >= $2 LIMIT 1";
    /// Deletes what is wanted of a portal's lost calls.
    CLEAN_LOST_RULES = "DELETE FROM lost_call_rules WHERE portal_id = $1";
    /// Deletes a portal's lost calls.
    CLEAN_LOST_CALLS = "DELETE FROM lost_calls WHERE portal_id = $1";
    /// Deletes what is known of its robots.
    CLEAN_STAGE_ROBOTS = "DELETE FROM stage_robots WHERE portal_id = $1";
    /// Deletes how far its history has been read.
    CLEAN_STAGE_LOOKS = "DELETE FROM stage_looks WHERE portal_id = $1";
    /// Portals with old lost calls.
    OLD_LOST_CALLS = "SELECT l.portal_id AS key, MIN(l.changed_ms) AS at_ms,
            CAST(CASE WHEN MIN(l.changed_ms) < $2 THEN 1 ELSE 0 END AS BIGINT) AS due
        FROM lost_calls l WHERE l.portal_id > $1 GROUP BY l.portal_id ORDER BY l.portal_id LIMIT $3";
}

batches! {
    /// Which of these calls are known: `(portal, id)`.
    LOST_CALLS_BY_ID["tt"] = concat!("WITH v(portal_id, id) AS (VALUES {rows}) SELECT ", lost_columns!(), " FROM v
        JOIN lost_calls l ON l.portal_id = v.portal_id AND l.id = v.id");
    /// New lost calls; known ones stay as they are.
    LOST_CALLS_ADD["tttttiiiti"] = "INSERT INTO lost_calls (portal_id, id, card, stage, robot, entered_ms, found_ms, sure,
            state, changed_ms) VALUES {rows} ON CONFLICT (portal_id, id) DO NOTHING";
    /// What is known of robots now.
    STAGE_ROBOTS_PUT["ttttiitttii"] = "INSERT INTO stage_robots (portal_id, kind, stage, robot, seen, skipped, command_id,
            card, print, same, seen_ms) VALUES {rows}
        ON CONFLICT (portal_id, kind, stage, robot) DO UPDATE SET seen = excluded.seen, skipped = excluded.skipped,
            command_id = excluded.command_id, card = excluded.card, print = excluded.print, same = excluded.same,
            seen_ms = excluded.seen_ms";
    /// Old ones go.
    LOST_CALLS_DELETE["ti"] = "DELETE FROM lost_calls WHERE (portal_id, id) IN (SELECT l.portal_id, l.id
            FROM (VALUES {rows}) AS v JOIN lost_calls l ON l.portal_id = v.column1 AND l.changed_ms < v.column2)";
}
