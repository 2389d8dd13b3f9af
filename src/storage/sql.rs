//! Every statement, as text that SQLite and PostgreSQL both understand, here and in the files beside `chats.rs`, one per
//! theme. `storage/contract.rs` prepares each of them on both.

use super::db::Batch;

/// Declares the statements and lists them for the test that prepares each one.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* pub(in crate::storage) const $name: &str = $text;)*
        /// Every single statement by name.
        #[cfg(test)]
        pub(in crate::storage) const STATEMENTS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// Declares the many-row statements: `name[kinds of the columns] = text`.
macro_rules! batches {
    ($($(#[$doc:meta])* $name:ident[$kinds:literal] = $text:expr;)*) => {
        $($(#[$doc])* pub(in crate::storage) const $name: Batch = Batch { text: $text, kinds: $kinds };)*
        /// Every many-row statement by name.
        #[cfg(test)]
        pub(in crate::storage) const BATCHES: &[(&str, Batch)] = &[$((stringify!($name), $name)),*];
    };
}

/// Columns of a job in the order `jobs::read` wants them.
macro_rules! job_columns {
    () => {
        "id, queue, lane, kind, subject, seq, state, revision, tries, due_ms, not_after_ms, started_ms, reason, changed_ms"
    };
}

/// The row's worker owns the job's queue.
macro_rules! owns {
    ($job:literal) => {
        concat!("EXISTS (SELECT 1 FROM queues q WHERE q.key = ", $job, ".queue AND q.owner = v.worker)")
    };
}

/// By what right a row `v(id, run, worker, seen, …)` changes a job: it began it and nobody has since, or its worker owns
/// the queue and the job stands where it was seen (anywhere, if `seen` is empty), or it is the store itself (`*`).
macro_rules! holds {
    ($job:literal) => {
        concat!(
            "((v.run <> '' AND ",
            $job,
            ".started_by = v.run) OR (v.run = '' AND (v.seen = '' OR ",
            $job,
            ".state = v.seen) AND ",
            owns!($job),
            ") OR v.worker = '*')"
        )
    };
}

/// Columns of a message in the order `messages::read` wants them.
macro_rules! message_columns {
    () => {
        "m.id, m.channel_id, m.peer, m.portal_id, m.command_id, m.card, m.comment_id, m.responsible, m.content, \
         m.used_fallback, m.state, m.provider_id, m.error_code, m.error_detail, m.vendor_code, m.created_ms, \
         m.accepted_ms, m.sent_ms, m.delivered_ms, m.read_ms, m.failed_ms, m.silence, m.silent_ms, \
         m.changed_ms"
    };
}

/// Which dead letters are meant: kind, channel, portal, beginning of the reason (empty text is any), since, until, and
/// whether also sends whose messages may have arrived.
macro_rules! which_dead {
    () => {
        "dead_ms IS NOT NULL AND ($1 = '' OR kind = $1)
          AND ($2 = '' OR EXISTS (SELECT 1 FROM messages m WHERE m.id = jobs.subject AND m.channel_id = $2))
          AND ($3 = '' OR queue = 'crm:' || $3 OR queue = 'in:' || $3
               OR EXISTS (SELECT 1 FROM messages m WHERE m.id = jobs.subject AND m.portal_id = $3))
          AND ($4 = '' OR substr(reason, 1, length($4)) = $4)
          AND dead_ms >= $5 AND dead_ms < $6
          AND ($7 = 1 OR kind <> 'send'
               OR NOT EXISTS (SELECT 1 FROM messages m WHERE m.id = jobs.subject AND m.state = 'undecided'))"
    };
}

/// True of a message `m` that no job is about: nothing more is going to happen to it.
macro_rules! message_is_over {
    () => {
        "NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id IN ('send:' || m.id, 'comment:' || m.id, 'chat:' || m.id))"
    };
}

/// The same of a command `c`; a CRM that waits has had its answer.
macro_rules! command_is_over {
    () => {
        "NOT EXISTS (SELECT 1 FROM jobs j WHERE j.id IN ('command:' || c.id, 'reply:' || c.id)) \
         AND (c.answer_by_ms IS NULL OR c.state IN ('answered', 'closed'))"
    };
}

// Below the macros, which they use.
mod changes;
mod chats;
mod crm_chats;
mod deeds;
mod history;
mod lost_calls;
mod mirrors;
mod pages;
mod portals;
mod retention;
mod sms;
pub(super) mod transfer;
mod troubles;
mod workers;

pub(super) use self::{
    changes::*, chats::*, crm_chats::*, deeds::*, history::*, lost_calls::*, mirrors::*, pages::*, portals::*,
    retention::*, sms::*, troubles::*, workers::*,
};

/// Every single statement of every theme by name.
#[cfg(test)]
pub(super) fn statements() -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        STATEMENTS,
        changes::STATEMENTS,
        chats::STATEMENTS,
        crm_chats::STATEMENTS,
        history::STATEMENTS,
        lost_calls::STATEMENTS,
        mirrors::STATEMENTS,
        pages::STATEMENTS,
        portals::STATEMENTS,
        retention::STATEMENTS,
        sms::STATEMENTS,
        workers::STATEMENTS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// Every many-row statement of every theme by name.
#[cfg(test)]
pub(super) fn batches() -> impl Iterator<Item = (&'static str, Batch)> {
    [
        BATCHES,
        changes::BATCHES,
        chats::BATCHES,
        deeds::BATCHES,
        lost_calls::BATCHES,
        mirrors::BATCHES,
        retention::BATCHES,
        troubles::BATCHES,
        workers::BATCHES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// How rows are listed for PostgreSQL: one array per column.
pub(in crate::storage) const ARRAYS: &str = "SELECT * FROM UNNEST({arrays}) AS u({names})";

/// How PostgreSQL holds the rows of `c` that a statement finds: as an update of them would.
pub(in crate::storage) const LOCK: &str = "FOR NO KEY UPDATE OF c";

/// Tables of PostgreSQL that hold far more rows than when it last looked at them, by its running count.
pub(in crate::storage) const TABLES_GROWN: &str = "SELECT CAST(s.relname AS TEXT) AS name
    FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
    WHERE s.schemaname = current_schema() AND s.n_live_tup > 500 AND s.n_live_tup > 4 * GREATEST(c.reltuples, 0)";

/// Whether a table of PostgreSQL has no settings of its own.
pub(in crate::storage) const TABLE_IS_PLAIN: &str =
    "SELECT 1 AS one FROM pg_class WHERE oid = to_regclass($1) AND reloptions IS NULL";

statements! {
    /// Proves that the database answers.
    PING = "SELECT 1 AS one";

    // --- consent screens -----------------------------------------------------------------------------------------
    /// Remembers a word.
    AUTHORIZATION_ADD = "INSERT INTO authorizations (state, app, given_ms) VALUES ($1, $2, $3)";
    /// Uses a word up, if it was given after `$3`.
    AUTHORIZATION_USE = "DELETE FROM authorizations WHERE state = $1 AND app = $2 AND given_ms > $3";
    /// Forgets words given at `$1` or before.
    AUTHORIZATIONS_EXPIRE = "DELETE FROM authorizations WHERE given_ms <= $1";

    // --- what the store remembers about itself -------------------------------------------------------------------
    /// Makes a note unless it is there.
    NOTE_ADD = "INSERT INTO store_notes (key, value, changed_ms) VALUES ($1, $2, $3) ON CONFLICT (key) DO NOTHING";
    /// A note.
    NOTE_GET = "SELECT value FROM store_notes WHERE key = $1";
    /// Forgets a note.
    NOTE_DROP = "DELETE FROM store_notes WHERE key = $1";
    /// A write that means nothing: proves that the store takes writes.
    NOTE_SIGN = "INSERT INTO store_notes (key, value, changed_ms) VALUES ('ready', '', $1)
        ON CONFLICT (key) DO UPDATE SET changed_ms = excluded.changed_ms";
    /// Renews the note of whoever comes first after `$4`.
    NOTE_CLAIM = "INSERT INTO store_notes (key, value, changed_ms) VALUES ($1, $2, $3)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, changed_ms = excluded.changed_ms
        WHERE store_notes.changed_ms <= $4";
    /// Work that was open at `$1` and must not be done twice.
    JOBS_IN_DOUBT = "SELECT id, kind, subject FROM jobs WHERE kind IN ('send', 'command') AND state <> 'dead'
        AND changed_ms <= $1 ORDER BY id LIMIT $2";
    /// Comments, and clients' messages in chats, are looked for before they are written.
    COMMENTS_IN_DOUBT = "UPDATE jobs SET state = 'unclear' WHERE kind IN ('comment', 'chat') AND state = 'ready'";
    /// Workers that live at `$1`.
    WORKERS_LIVING = "SELECT id, lease_until_ms FROM workers WHERE lease_until_ms >= $1 ORDER BY lease_until_ms DESC LIMIT 1";
    /// The server's time as `YYYY-MM-DD HH:MM:SS.ffffff+00`. Both databases can say it; only PostgreSQL's is used, because
    /// SQLite's is this machine's own, to the second.
    SERVER_TIME = "SELECT CAST(CURRENT_TIMESTAMP AS TEXT) AS now";

    // --- workers and queues -------------------------------------------------------------------------------------
    /// Workers other than `$1`; on SQLite they are gone for sure, because only one process may run.
    WORKER_OTHERS_LEAVE = "DELETE FROM workers WHERE id <> $1";
    /// Workers that have been silent for long.
    WORKER_FORGET = "DELETE FROM workers WHERE lease_until_ms < $1";
    /// The worker lets all its queues go; whoever finds one with work takes it.
    QUEUES_RELEASE = "UPDATE queues SET owner = NULL, next_due_ms = COALESCE(next_due_ms, $2) WHERE owner = $1";
    /// Queues with news: free ones, ones whose owner is gone, and our own.
    QUEUES_WITH_NEWS = "SELECT q.key FROM queues q LEFT JOIN workers w ON w.id = q.owner
        WHERE q.next_due_ms <= $2
          AND (q.owner IS NULL OR q.owner = $1 OR w.id IS NULL OR w.lease_until_ms < $3)
        ORDER BY q.next_due_ms LIMIT 256";
    /// Queues whose owner is gone, whether or not there is news: their running jobs must be looked after.
    QUEUES_ORPHANED = "SELECT q.key FROM queues q LEFT JOIN workers w ON w.id = q.owner
        WHERE q.owner IS NOT NULL AND q.owner <> $1 AND (w.id IS NULL OR w.lease_until_ms < $2)
        ORDER BY q.owner LIMIT 256";
    /// Queues of one owner, whether or not there is news.
    QUEUES_OWNED = "SELECT key FROM queues WHERE owner = $1";
    /// Lets one queue go.
    QUEUE_RELEASE = "UPDATE queues SET owner = NULL, next_due_ms = COALESCE(next_due_ms, $3)
        WHERE key = $1 AND owner = $2";
    /// Queues that have jobs older than `$1` waiting: the net below every hand-over that may have been missed.
    QUEUES_STRAGGLING = "SELECT DISTINCT queue FROM jobs WHERE dead_ms IS NULL AND due_ms < $1 AND queue > $2
        ORDER BY queue LIMIT 256";

    // --- jobs ---------------------------------------------------------------------------------------------------
    /// Whether a queue holds more than so many jobs.
    JOBS_BEYOND = "SELECT 1 AS one FROM jobs WHERE queue = $1 AND dead_ms IS NULL LIMIT 1 OFFSET $2";
    /// All of a queue in order.
    JOBS_ALL = concat!("SELECT ", job_columns!(), " FROM jobs
        WHERE queue = $1 AND dead_ms IS NULL ORDER BY seq LIMIT $2");
    /// The first jobs of lanes, those of one kind that are due, the longest waiting first. (Numbering the rows of each lane
    /// instead takes SQLite twice as long.)
    JOBS_HEADS = concat!("SELECT ", job_columns!(), " FROM jobs
        WHERE queue = $1 AND kind = $2 AND dead_ms IS NULL AND due_ms <= $3
          AND NOT EXISTS (SELECT 1 FROM jobs e WHERE e.queue = jobs.queue AND e.lane = jobs.lane AND e.seq < jobs.seq
              AND e.dead_ms IS NULL)
        ORDER BY due_ms, seq LIMIT $4");
    /// One job.
    JOB_GET = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1");
    /// Dead letters, newest first, those behind the one that died at `$8` under the id `$9`.
    JOBS_DEAD = concat!("SELECT ", job_columns!(), " FROM jobs WHERE ", which_dead!(), "
          AND (dead_ms < $8 OR (dead_ms = $8 AND id < $9))
        ORDER BY dead_ms DESC, id DESC LIMIT $10");
    /// How many there are.
    JOBS_DEAD_COUNT = concat!("SELECT COUNT(*) AS n FROM jobs WHERE ", which_dead!());
    /// A dead letter that has nothing to do any more.
    JOB_FORGET_DEAD = "DELETE FROM jobs WHERE id = $1 AND state = 'dead'";
    /// A dead letter lives again under its old identity.
    JOB_REDRIVE = "UPDATE jobs SET state = 'ready', tries = 0, due_ms = $2, not_after_ms = $3, started_ms = NULL,
        started_by = NULL, reason = NULL, dead_ms = NULL, changed_ms = $2 WHERE id = $1 AND state = 'dead'";
    /// How many jobs there are by state, and when the first of them became due: one look at the table.
    JOBS_COUNT = "SELECT state, COUNT(*) AS n, MIN(due_ms) AS oldest_ms FROM jobs GROUP BY state";
    /// Sends of a channel that have not begun.
    JOBS_OF_QUEUE = "SELECT COUNT(*) AS n FROM jobs WHERE queue = $1 AND dead_ms IS NULL";
    /// Messages taken over before `$2` whose send has not begun, for clearing a channel's queue.
    SENDS_WAITING = "SELECT j.subject FROM jobs j JOIN messages m ON m.id = j.subject
        WHERE j.queue = $1 AND j.dead_ms IS NULL AND j.kind = 'send' AND j.state = 'ready' AND m.state = 'queued'
          AND m.created_ms < $2
        ORDER BY j.seq LIMIT $3";

    /// Messages of a queue whose deadline is over and whose send has not begun.
    SENDS_OVERDUE = "SELECT subject FROM jobs WHERE queue = $1 AND dead_ms IS NULL AND kind = 'send'
        AND state = 'ready' AND not_after_ms < $2 LIMIT $3";

    // --- guards -------------------------------------------------------------------------------------------------
    /// Takes a text for a message if nobody has it, and holds its row until the commit in either case: whoever has it is
    /// judged by a statement of its own, which sees what another commit has just stored.
    TEXT_LOCK = "INSERT INTO sent_texts (mark, message_id, sent_ms) VALUES ($1, $2, $3)
        ON CONFLICT (mark) DO UPDATE SET sent_ms = sent_texts.sent_ms RETURNING message_id";
    /// Takes a held text over for a message, unless a message that left or may still leave has it since `$4`.
    TEXT_CLAIM = "UPDATE sent_texts SET message_id = $2, sent_ms = $3
        WHERE mark = $1 AND (sent_ms <= $4 OR NOT EXISTS (SELECT 1 FROM messages m
            WHERE m.id = sent_texts.message_id AND m.state NOT IN ('failed', 'cancelled')))";
    /// Texts taken so long ago that no line asks for them any more.
    TEXTS_FORGET = "DELETE FROM sent_texts WHERE sent_ms < $1";
    /// Which command a robot gave last for a card and a person: this one if there was none. Its row is held until the
    /// commit.
    ROBOT_TURN = "INSERT INTO robot_turns (key, command_id, given_ms) VALUES ($1, $2, $3)
        ON CONFLICT (key) DO UPDATE SET given_ms = robot_turns.given_ms RETURNING command_id";
    /// The robot has given another.
    ROBOT_TURN_PUT = "UPDATE robot_turns SET command_id = $2, given_ms = $3 WHERE key = $1";
    /// Turns so long ago that nothing of them can wait any more.
    ROBOT_TURNS_FORGET = "DELETE FROM robot_turns WHERE given_ms < $1";
    /// A command's messages, and where their sends stand (a job's id is made of its kind and subject).
    SENDS_OF_COMMAND = "SELECT m.id, m.peer, m.state, j.state AS job_state FROM messages m
        LEFT JOIN jobs j ON j.id = 'send:' || m.id WHERE m.command_id = $1 ORDER BY m.id";

    // --- commands -----------------------------------------------------------------------------------------------
    /// Waiting CRMs whose time is over.
    COMMANDS_OVERDUE = "SELECT id, portal_id, received_ms FROM commands
        WHERE answer_by_ms <= $1 AND state IN ('new', 'open') AND answer_by_ms IS NOT NULL ORDER BY answer_by_ms LIMIT 200";

    // --- messages -----------------------------------------------------------------------------------------------
    /// One message.
    MESSAGE_GET = concat!("SELECT ", message_columns!(), ", m.inbound FROM messages m WHERE m.id = $1");
    /// A message whose send was given up waits again, because a person decided so; not one that is known to have left.
    MESSAGE_REQUEUE = "UPDATE messages SET state = 'queued', rank = 0, error_code = NULL, error_detail = NULL,
        vendor_code = NULL, failed_ms = NULL, silence = '', silent_ms = NULL, awaited = 1, changed_ms = $2
        WHERE id = $1 AND state IN ('queued', 'failed', 'undecided') AND sent_ms IS NULL AND delivered_ms IS NULL
          AND read_ms IS NULL AND EXISTS (SELECT 1 FROM jobs j WHERE j.id = 'send:' || messages.id AND j.state = 'dead')";
    /// History, newest first, those before the id `$3`. Empty text is "any".
    MESSAGES_LIST = concat!("SELECT ", message_columns!(), ", m.inbound FROM messages m
        WHERE ($1 = '' OR m.channel_id = $1) AND ($2 = '' OR m.state = $2) AND m.id < $3 ORDER BY m.id DESC LIMIT $4");
    /// The same of one person.
    MESSAGES_OF_PEER = concat!("SELECT ", message_columns!(), ", m.inbound FROM messages m
        WHERE ($1 = '' OR m.channel_id = $1) AND ($2 = '' OR m.state = $2) AND m.id < $3 AND m.peer = $5
        ORDER BY m.id DESC LIMIT $4");
    /// Attempts of one message.
    ATTEMPTS_OF_MESSAGE = "SELECT at_ms, duration_ms, outcome, failure_class, vendor_code, raw FROM attempts
        WHERE message_id = $1 ORDER BY id LIMIT 200";
    /// Keeps an idempotency key; nothing happens if it is known.
    API_REQUEST_ADD = "INSERT INTO api_requests (key, fingerprint, message_id, created_ms) VALUES ($1, $2, $3, $4)
        ON CONFLICT (key) DO NOTHING";
    /// What an idempotency key stands for.
    API_REQUEST_GET = "SELECT fingerprint, message_id FROM api_requests WHERE key = $1";

    // --- every state ends ---------------------------------------------------------------------------------------
    /// The oldest living worker: the one that watches, so that replicas do not all do the same.
    WORKER_FIRST = "SELECT MIN(id) AS first FROM workers WHERE lease_until_ms >= $1";
    /// Providers that channels have: from one word of the index to the next, however many channels have it.
    CHANNEL_PROVIDERS = "WITH RECURSIVE known(provider) AS (SELECT MIN(provider) FROM channels
            UNION ALL SELECT (SELECT MIN(c.provider) FROM channels c WHERE c.provider > known.provider) FROM known
            WHERE known.provider IS NOT NULL)
        SELECT provider FROM known WHERE provider IS NOT NULL";
    /// Since when the message has waited that has been longest in its state, by state.
    MESSAGES_OLDEST_OPEN = "SELECT state, MIN(changed_ms) AS oldest FROM messages
        WHERE awaited = 1 GROUP BY state";

    // --- lines and channels -------------------------------------------------------------------------------------
    /// A new line.
    LINE_ADD = "INSERT INTO lines (id, name, created_ms) VALUES ($1, $2, $3)";
    /// Lines behind `$1`, oldest first.
    LINES = "SELECT id, name, settings FROM lines WHERE id > $1 ORDER BY id LIMIT $2";
    /// One line.
    LINE_GET = "SELECT id, name, settings FROM lines WHERE id = $1";
    /// What holds for a line's messages.
    LINE_SETTINGS = "UPDATE lines SET settings = $2 WHERE id = $1";
    /// A new channel.
    CHANNEL_ADD = "INSERT INTO channels (id, line_id, provider, name, credentials, settings, state, state_reason,
            created_ms, changed_ms) VALUES ($1, $2, $3, $4, $5, $6, 'active', '', $7, $7)";
    /// Channels behind `$1`, oldest first.
    CHANNELS = "SELECT id, line_id, provider, name, credentials, settings, state, state_reason, echo_ms, ramp FROM channels
        WHERE id > $1 ORDER BY id LIMIT $2";
    /// Channels of a provider behind `$2`, oldest first.
    CHANNELS_OF_PROVIDER = "SELECT id, line_id, provider, name, credentials, settings, state, state_reason, echo_ms, ramp
        FROM channels WHERE provider = $1 AND id > $2 ORDER BY id LIMIT $3";
    /// How many are paused.
    CHANNELS_PAUSED = "SELECT COUNT(*) AS n FROM channels WHERE state = 'paused'";
    /// One channel.
    CHANNEL_GET = "SELECT id, line_id, provider, name, credentials, settings, state, state_reason, echo_ms, ramp FROM channels
        WHERE id = $1";
    /// Channels of a line, oldest first.
    CHANNELS_OF_LINE = "SELECT id, line_id, provider, name, credentials, settings, state, state_reason, echo_ms, ramp
        FROM channels WHERE line_id = $1 ORDER BY id";
    /// Pauses or resumes a channel.
    CHANNEL_STATE = "UPDATE channels SET state = $2, state_reason = $3, ramp = $4, changed_ms = $5 WHERE id = $1";

}

batches! {
    // --- accept -------------------------------------------------------------------------------------------------
    /// New commands; a known key changes nothing.
    COMMANDS_ADD["tttttiiiiii"] = "INSERT INTO commands (id, portal_id, dedupe_key, payload, state, wait_rank, answer_by_ms,
            in_time, planned, received_ms, changed_ms) VALUES {rows}
        ON CONFLICT (portal_id, dedupe_key) DO NOTHING RETURNING id";
    /// Which of these lanes hold commands that have not been planned.
    LANES_WITH_COMMANDS["tt"] = "WITH v(queue, lane) AS (VALUES {rows})
        SELECT v.queue, v.lane FROM v WHERE EXISTS (SELECT 1 FROM jobs j
            WHERE j.queue = v.queue AND j.lane = v.lane AND j.kind = 'command' AND j.dead_ms IS NULL)";
    /// New jobs; known ones stay.
    JOBS_ADD["tttttttiiiii"] = "INSERT INTO jobs (id, queue, lane, kind, subject, seq, state, revision, tries, due_ms,
            not_after_ms, changed_ms) VALUES {rows} ON CONFLICT (id) DO NOTHING";
    /// New jobs, or one more request for known work.
    JOBS_ASK["tttttttiiiii"] = "INSERT INTO jobs (id, queue, lane, kind, subject, seq, state, revision, tries, due_ms,
            not_after_ms, changed_ms) VALUES {rows}
        ON CONFLICT (id) DO UPDATE SET revision = jobs.revision + 1, changed_ms = excluded.changed_ms
        RETURNING id, queue, lane, kind, subject, seq, state, revision, tries, due_ms, not_after_ms, started_ms, reason,
            changed_ms";
    /// There is work in queues this process does not own: an unknown queue becomes its own, the owner of a known one
    /// (or whoever finds it free) is told by `next_due_ms`.
    QUEUES_NEWS["tti"] = "INSERT INTO queues (key, owner, next_due_ms) VALUES {rows}
        ON CONFLICT (key) DO UPDATE SET next_due_ms = CASE WHEN queues.next_due_ms < excluded.next_due_ms
            THEN queues.next_due_ms ELSE excluded.next_due_ms END";

    // --- plan ---------------------------------------------------------------------------------------------------
    /// A command has been turned into messages; only once. A CRM that could not wait for that has its answer already.
    COMMANDS_PLANNED["tti"] = "WITH v(id, state, now_ms) AS (VALUES {rows})
        UPDATE commands SET planned = 1, changed_ms = v.now_ms,
            state = CASE WHEN commands.state = 'new' THEN v.state ELSE commands.state END
        FROM v WHERE commands.id = v.id AND commands.planned = 0 RETURNING commands.id";
    /// New outgoing messages.
    MESSAGES_ADD["titttttittititttiiiii"] = "INSERT INTO messages (id, inbound, channel_id, peer, portal_id, command_id, card, comments,
            responsible, content, used_fallback, state, rank, provider_id, error_code, error_detail, created_ms,
            failed_ms, sent_ms, changed_ms, awaited) VALUES {rows} ON CONFLICT (id) DO NOTHING RETURNING id";
    /// What is known of persons on channels.
    DIALOGS_FIND["tt"] = "WITH v(channel_id, peer) AS (VALUES {rows})
        SELECT DISTINCT d.channel_id, d.peer, d.last_inbound_ms FROM v
        JOIN dialogs d ON d.channel_id = v.channel_id AND d.peer = v.peer";

    // --- run ----------------------------------------------------------------------------------------------------
    /// Jobs whose work must not be done twice are begun by the owner of their queue, and only at the head of their lane:
    /// another process may have put something ahead that the owner does not know of yet. Whoever is named by RETURNING
    /// may do it.
    JOBS_START["ttti"] = concat!("WITH v(id, started_by, worker, now_ms) AS (VALUES {rows})
        UPDATE jobs SET state = 'started', started_by = v.started_by, started_ms = v.now_ms, changed_ms = v.now_ms
        FROM v WHERE jobs.id = v.id AND jobs.state = 'ready' AND ", owns!("jobs"), "
            AND NOT EXISTS (SELECT 1 FROM jobs e WHERE e.queue = jobs.queue AND e.lane = jobs.lane AND e.seq < jobs.seq
                AND e.dead_ms IS NULL)
        RETURNING jobs.id");
    /// The same for work that looks first whether it was done (comments).
    JOBS_START_AGAIN["ttti"] = concat!("WITH v(id, started_by, worker, now_ms) AS (VALUES {rows})
        UPDATE jobs SET state = 'started', started_by = v.started_by, started_ms = v.now_ms, changed_ms = v.now_ms
        FROM v WHERE jobs.id = v.id AND jobs.state <> 'dead' AND ", owns!("jobs"), " RETURNING jobs.id");
    /// Messages move up.
    MESSAGES_MOVE["tttiiiiiiittttiiti"] = "WITH v(id, channel_id, state, rank, below, accepted_ms, sent_ms, delivered_ms, read_ms,
            failed_ms, provider_id, error_code, error_detail, vendor_code, used_fallback, now_ms, silence, awaited) AS
            (VALUES {rows})
        UPDATE messages SET state = v.state, rank = v.rank,
            accepted_ms = COALESCE(messages.accepted_ms, v.accepted_ms), sent_ms = COALESCE(messages.sent_ms, v.sent_ms),
            delivered_ms = COALESCE(messages.delivered_ms, v.delivered_ms),
            read_ms = COALESCE(messages.read_ms, v.read_ms), failed_ms = v.failed_ms,
            provider_id = COALESCE(messages.provider_id, v.provider_id), error_code = v.error_code,
            error_detail = v.error_detail, vendor_code = v.vendor_code,
            used_fallback = CASE WHEN v.used_fallback = 1 THEN 1 ELSE messages.used_fallback END, silence = v.silence,
            awaited = v.awaited, changed_ms = v.now_ms
        FROM v WHERE messages.id = v.id AND messages.inbound = 0 AND messages.rank < v.below
            AND (v.channel_id IS NULL OR messages.channel_id = v.channel_id)
        RETURNING messages.id, messages.channel_id, messages.peer, messages.command_id, messages.portal_id,
            messages.card, messages.comments, messages.state, messages.accepted_ms, messages.silent_ms";
    /// Why messages still wait; they stay in their state, so `changed_ms` stays too.
    MESSAGES_NOTE["tttt"] = "WITH v(id, error_code, error_detail, vendor_code) AS (VALUES {rows})
        UPDATE messages SET error_code = v.error_code, error_detail = v.error_detail, vendor_code = v.vendor_code
        FROM v WHERE messages.id = v.id AND messages.rank = 0 AND messages.inbound = 0
        RETURNING messages.id, messages.portal_id, messages.card, messages.comments";
    /// Late news: the times are kept, the state stays.
    MESSAGES_LATE["ttiiiit"] = "WITH v(id, channel_id, accepted_ms, sent_ms, delivered_ms, read_ms, provider_id) AS
            (VALUES {rows})
        UPDATE messages SET accepted_ms = COALESCE(messages.accepted_ms, v.accepted_ms),
            sent_ms = COALESCE(messages.sent_ms, v.sent_ms),
            delivered_ms = COALESCE(messages.delivered_ms, v.delivered_ms),
            read_ms = COALESCE(messages.read_ms, v.read_ms),
            provider_id = COALESCE(messages.provider_id, v.provider_id)
        FROM v WHERE messages.id = v.id AND messages.inbound = 0
            AND (v.channel_id IS NULL OR messages.channel_id = v.channel_id)";
    /// Sends and commands that are over, for whoever has the right to say so.
    JOBS_DELETE_HELD["tttt"] = concat!("WITH v(id, run, worker, seen) AS (VALUES {rows})
        DELETE FROM jobs WHERE id IN (SELECT j.id FROM v JOIN jobs j ON j.id = v.id AND ", holds!("j"), ")
        RETURNING id");
    /// Jobs that are over. A dead letter is not, whoever still held an older copy of its job.
    JOBS_DELETE["t"] = "DELETE FROM jobs WHERE state <> 'dead' AND id IN (SELECT column1 FROM (VALUES {rows}) AS v)";
    /// Sends of a channel that its echo has settled: also when they had been given up, and when they wait to be sent
    /// again. One that is being sent right now has to hear its own answer.
    JOBS_DELETE_ECHOED["tt"] = "DELETE FROM jobs WHERE id IN (SELECT j.id FROM (VALUES {rows}) AS v
            JOIN jobs j ON j.id = v.column1 AND j.queue = v.column2 AND j.state <> 'started')
        RETURNING id, queue";
    /// Jobs that have not begun and are withdrawn.
    JOBS_DELETE_READY["t"] = "DELETE FROM jobs WHERE state = 'ready' AND id IN
            (SELECT column1 FROM (VALUES {rows}) AS v) RETURNING id, queue, subject";
    /// Jobs that have not begun and whose deadline is over die.
    JOBS_EXPIRE["tti"] = "WITH v(id, reason, now_ms) AS (VALUES {rows})
        UPDATE jobs SET state = 'dead', dead_ms = v.now_ms, reason = v.reason, changed_ms = v.now_ms
        FROM v WHERE jobs.id = v.id AND jobs.state = 'ready' AND jobs.not_after_ms < v.now_ms
        RETURNING jobs.id, jobs.queue, jobs.subject";
    /// Effects that are done, unless they were asked for again meanwhile.
    JOBS_DELETE_REVISION["ti"] = "DELETE FROM jobs WHERE id IN (SELECT j.id FROM (VALUES {rows}) AS v
            JOIN jobs j ON j.id = v.column1 AND j.revision = v.column2)";
    /// Effects that were asked for again while they ran.
    JOBS_AGAIN["tti"] = concat!("WITH v(id, worker, now_ms) AS (VALUES {rows})
        UPDATE jobs SET state = 'ready', tries = 0, due_ms = v.now_ms, started_ms = NULL, started_by = NULL,
            changed_ms = v.now_ms
        FROM v WHERE jobs.id = v.id AND jobs.state <> 'dead' AND ", owns!("jobs"), "
        RETURNING jobs.id, jobs.queue, jobs.lane, jobs.kind, jobs.subject, jobs.seq, jobs.state, jobs.revision,
            jobs.tries, jobs.due_ms, jobs.not_after_ms, jobs.started_ms, jobs.reason, jobs.changed_ms");
    /// Jobs wait, turn unclear or die, for whoever has the right to say so.
    JOBS_PUT["tttttiiti"] = concat!("WITH v(id, run, worker, seen, state, due_ms, tries, reason, now_ms) AS
            (VALUES {rows})
        UPDATE jobs SET state = v.state, due_ms = v.due_ms, tries = v.tries, reason = v.reason, changed_ms = v.now_ms,
            dead_ms = CASE WHEN v.state = 'dead' THEN v.now_ms END
        FROM v WHERE jobs.id = v.id AND jobs.state <> 'dead' AND ", holds!("jobs"), " RETURNING jobs.id");
    /// The journal.
    ATTEMPTS_ADD["tttiitttt"] = "INSERT INTO attempts (id, job_id, message_id, at_ms, duration_ms, outcome, failure_class,
            vendor_code, raw) VALUES {rows} ON CONFLICT (id) DO NOTHING";

    // --- ingest -------------------------------------------------------------------------------------------------
    /// Which message of ours a provider's id belongs to.
    MESSAGES_BY_PROVIDER_ID["tt"] = "WITH v(channel_id, provider_id) AS (VALUES {rows})
        SELECT DISTINCT m.id, m.provider_id FROM v
        JOIN messages m ON m.provider_id = v.provider_id AND m.channel_id = v.channel_id AND m.inbound = 0";
    /// An echo came for a message that was accepted at `echo_ms`: proof that the channel's way back works.
    CHANNELS_ECHO["ti"] = "WITH v(id, echo_ms) AS (VALUES {rows})
        UPDATE channels SET echo_ms = v.echo_ms FROM v
        WHERE channels.id = v.id AND (channels.echo_ms IS NULL OR channels.echo_ms < v.echo_ms)";
    /// People shared their phones: the last chat of each counts.
    CHAT_PHONES_PUT["ttti"] = "INSERT INTO chat_phones (channel_id, phone, peer, shared_ms) VALUES {rows}
        ON CONFLICT (channel_id, phone) DO UPDATE SET peer = excluded.peer, shared_ms = excluded.shared_ms";
    /// The chats that phones lead to.
    CHAT_PHONES_FIND["tt"] = "WITH v(channel_id, phone) AS (VALUES {rows})
        SELECT DISTINCT p.channel_id, p.phone, p.peer FROM v
        JOIN chat_phones p ON p.channel_id = v.channel_id AND p.phone = v.phone";
    /// A person wrote: the window opens, and never closes earlier because of late news.
    DIALOGS_WROTE["tttii"] = "INSERT INTO dialogs (channel_id, peer, name, last_inbound_ms, changed_ms) VALUES {rows}
        ON CONFLICT (channel_id, peer) DO UPDATE SET
            name = CASE WHEN excluded.name = '' THEN dialogs.name ELSE excluded.name END,
            last_inbound_ms = CASE WHEN dialogs.last_inbound_ms IS NULL
                OR dialogs.last_inbound_ms < excluded.last_inbound_ms
                THEN excluded.last_inbound_ms ELSE dialogs.last_inbound_ms END,
            changed_ms = excluded.changed_ms";

    // --- every state ends ---------------------------------------------------------------------------------------
    /// Messages that have been in a state since `before_ms` or longer, the oldest of each portal, no more of one portal
    /// than one batch to it carries. CROSS JOIN holds SQLite to this order: one look through what is still awaited, and not
    /// one per lookout or channel.
    MESSAGES_WATCHED["ttti"] = "WITH v(provider, state, silence, before_ms) AS (VALUES {rows}),
            due AS (SELECT m.id, m.channel_id, m.peer, m.state, m.silence, m.changed_ms,
                ROW_NUMBER() OVER (PARTITION BY COALESCE(m.portal_id, m.channel_id), m.state ORDER BY m.changed_ms, m.id) AS place
            FROM messages m CROSS JOIN v CROSS JOIN channels c
            WHERE m.awaited = 1 AND m.state = v.state AND m.silence = v.silence AND m.changed_ms <= v.before_ms
                AND c.id = m.channel_id AND c.provider = v.provider)
        SELECT id, channel_id, peer, state, silence, changed_ms FROM due WHERE place <= 50
        ORDER BY changed_ms, id LIMIT 500";
    /// What is said of silent messages, unless they have moved or it is said already.
    MESSAGES_SILENT["ttti"] = "WITH v(id, state, silence, now_ms) AS (VALUES {rows})
        UPDATE messages SET silence = v.silence, silent_ms = v.now_ms,
            awaited = CASE WHEN v.silence = 'closed' THEN 0 ELSE messages.awaited END
        FROM v WHERE messages.id = v.id AND messages.state = v.state AND messages.silence <> v.silence
            AND messages.silence <> 'closed'
        RETURNING messages.id, messages.portal_id, messages.card, messages.comments";
    /// Jobs are given up, unless they have changed since they were looked at.
    JOBS_BURY["ttti"] = "WITH v(id, state, reason, now_ms) AS (VALUES {rows})
        UPDATE jobs SET state = 'dead', dead_ms = v.now_ms, reason = v.reason, changed_ms = v.now_ms
        FROM v WHERE jobs.id = v.id AND jobs.state = v.state RETURNING jobs.id";
    /// Dead letters of work whose job is gone, so that a person can redrive it.
    JOBS_ADD_DEAD["tttttttiiiiti"] = "INSERT INTO jobs (id, queue, lane, kind, subject, seq, state, revision, tries,
            due_ms, changed_ms, reason, dead_ms) VALUES {rows} ON CONFLICT (id) DO NOTHING RETURNING id";

    // --- waiting CRMs -------------------------------------------------------------------------------------------
    /// Locks the commands whose messages moved, so that two writers cannot both see the other's part missing.
    COMMANDS_LOCK["t"] = "WITH v(id) AS (VALUES {rows})
        SELECT c.id FROM v JOIN commands c ON c.id = v.id AND c.state = 'open' {lock}";
    /// How many messages of an open command have reached what is waited for, or will never tell more. It may have none.
    /// Each id is asked for once.
    COMMANDS_PROGRESS["t"] = "WITH v(id) AS (VALUES {rows})
        SELECT c.id, COUNT(m.id) AS total,
            COUNT(CASE WHEN m.rank >= c.wait_rank OR (m.silence = 'closed' AND m.silent_ms IS NULL) THEN m.id END) AS reached
        FROM v JOIN commands c ON c.id = v.id AND c.state = 'open' LEFT JOIN messages m ON m.command_id = c.id
        GROUP BY c.id";
    /// The CRM gets its result now.
    COMMANDS_ANSWER["tii"] = "WITH v(id, in_time, now_ms) AS (VALUES {rows})
        UPDATE commands SET state = 'answered', in_time = v.in_time, answer_by_ms = NULL, changed_ms = v.now_ms FROM v
        WHERE commands.id = v.id AND commands.state IN ('new', 'open')
        RETURNING commands.id, commands.portal_id, commands.received_ms";
    /// The CRM has its result.
    COMMANDS_CLOSE["ti"] = "WITH v(id, now_ms) AS (VALUES {rows})
        UPDATE commands SET state = 'closed', changed_ms = v.now_ms FROM v WHERE commands.id = v.id";

    // --- effects ------------------------------------------------------------------------------------------------
    /// Which comment tells about which message.
    COMMENTS_PUT["tt"] = "WITH v(id, comment_id) AS (VALUES {rows})
        UPDATE messages SET comment_id = v.comment_id FROM v WHERE messages.id = v.id";
    /// Messages by id.
    MESSAGES_BY_ID["t"] = concat!("SELECT ", message_columns!(), ", m.inbound FROM messages m
        WHERE m.id IN (SELECT column1 FROM (VALUES {rows}) AS v)");
    /// Messages by command, in the order they were made.
    MESSAGES_BY_COMMAND["t"] = concat!("SELECT ", message_columns!(), ", m.inbound FROM messages m
        WHERE m.command_id IN (SELECT column1 FROM (VALUES {rows}) AS v) ORDER BY m.id");
    /// Commands by id.
    COMMANDS_BY_ID["t"] = "SELECT id, payload, in_time FROM commands
        WHERE id IN (SELECT column1 FROM (VALUES {rows}) AS v)";
    /// Revisions and states of jobs as they are now.
    JOBS_BY_ID["t"] = concat!("SELECT ", job_columns!(), " FROM jobs
        WHERE id IN (SELECT column1 FROM (VALUES {rows}) AS v)");
}
