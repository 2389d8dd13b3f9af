-- One text for SQLite and PostgreSQL: TEXT and BIGINT only, times in milliseconds UTC (`…_ms`), flags 0/1, JSON in TEXT,
-- sealed secrets in TEXT. Names of states are closed lists, held by checks.

-- Processes that run jobs. A worker whose lease is over has lost everything it owned.
CREATE TABLE workers (
    id              TEXT PRIMARY KEY,
    started_ms      BIGINT NOT NULL,
    lease_until_ms  BIGINT NOT NULL
);

-- Who runs the jobs of a queue. `next_due_ms` tells the owner (or whoever finds the queue free) that jobs came in that
-- it may not know of; NULL means there is no news.
CREATE TABLE queues (
    key          TEXT PRIMARY KEY,
    owner        TEXT,
    next_due_ms  BIGINT
);

CREATE TABLE portals (
    id                 TEXT PRIMARY KEY,
    crm                TEXT NOT NULL CHECK (crm IN ('bitrix24', 'amocrm')),
    app                TEXT NOT NULL,
    member_id          TEXT NOT NULL,
    domain             TEXT NOT NULL,
    client_endpoint    TEXT NOT NULL,
    server_endpoint    TEXT NOT NULL,
    application_token  TEXT,
    language           TEXT NOT NULL CHECK (language IN ('ru', 'en')),
    state              TEXT NOT NULL CHECK (state IN ('installed', 'needs_auth', 'blocked', 'uninstalled')),
    state_reason       TEXT NOT NULL,
    installed_ms       BIGINT NOT NULL,
    changed_ms         BIGINT NOT NULL,
    UNIQUE (crm, app, member_id)
);

-- One living pair per user of a portal; `before` keeps the pair it replaced, for one generation.
CREATE TABLE portal_tokens (
    portal_id    TEXT NOT NULL REFERENCES portals (id),
    user_id      TEXT NOT NULL,
    is_admin     BIGINT NOT NULL,
    pair         TEXT NOT NULL,
    before       TEXT,
    expires_ms   BIGINT NOT NULL,
    obtained_ms  BIGINT NOT NULL,
    dead         BIGINT NOT NULL,
    PRIMARY KEY (portal_id, user_id)
);

-- What was registered in a portal last (robots, handlers), so that only differences are sent.
CREATE TABLE registrations (
    portal_id    TEXT NOT NULL REFERENCES portals (id),
    key          TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    PRIMARY KEY (portal_id, key)
);

CREATE TABLE lines (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    created_ms  BIGINT NOT NULL
);

CREATE TABLE channels (
    id            TEXT PRIMARY KEY,
    line_id       TEXT NOT NULL REFERENCES lines (id),
    provider      TEXT NOT NULL,
    name          TEXT NOT NULL,
    credentials   TEXT NOT NULL,
    settings      TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('active', 'paused')),
    state_reason  TEXT NOT NULL,
    echo_ms       BIGINT,
    created_ms    BIGINT NOT NULL,
    changed_ms    BIGINT NOT NULL
);
CREATE INDEX channels_by_line ON channels (line_id, id);

CREATE TABLE portal_lines (
    portal_id  TEXT NOT NULL REFERENCES portals (id),
    line_id    TEXT NOT NULL REFERENCES lines (id),
    bound_ms   BIGINT NOT NULL,
    PRIMARY KEY (portal_id, line_id)
);

-- What is known of one person on one channel. The last inbound message opens the service window.
CREATE TABLE dialogs (
    channel_id        TEXT NOT NULL REFERENCES channels (id),
    peer              TEXT NOT NULL,
    name              TEXT NOT NULL,
    last_inbound_ms   BIGINT,
    changed_ms        BIGINT NOT NULL,
    PRIMARY KEY (channel_id, peer)
);
CREATE INDEX dialogs_by_peer ON dialogs (peer);

-- What CRMs asked for. The unique key is the shield against duplicate callbacks.
CREATE TABLE commands (
    id            TEXT PRIMARY KEY,
    portal_id     TEXT NOT NULL REFERENCES portals (id),
    dedupe_key    TEXT NOT NULL,
    payload       TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('new', 'open', 'answered', 'closed')),
    wait_rank     BIGINT NOT NULL,
    answer_by_ms  BIGINT,
    in_time       BIGINT NOT NULL,
    planned       BIGINT NOT NULL DEFAULT 0,
    received_ms   BIGINT NOT NULL,
    changed_ms    BIGINT NOT NULL,
    UNIQUE (portal_id, dedupe_key)
);
-- Commands whose CRM still waits, by the moment it must be answered.
CREATE INDEX commands_waiting ON commands (answer_by_ms) WHERE state IN ('new', 'open') AND answer_by_ms IS NOT NULL;

-- Every message in both directions. `rank` is the state's rank: a message only moves up.
CREATE TABLE messages (
    id            TEXT PRIMARY KEY,
    inbound       BIGINT NOT NULL,
    channel_id    TEXT REFERENCES channels (id),
    peer          TEXT NOT NULL,
    portal_id     TEXT REFERENCES portals (id),
    command_id    TEXT REFERENCES commands (id),
    card          TEXT,
    comments      BIGINT NOT NULL,
    comment_id    TEXT,
    responsible   TEXT,
    content       TEXT NOT NULL,
    used_fallback BIGINT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN
                    ('queued', 'undecided', 'accepted', 'sent', 'delivered', 'read', 'failed', 'cancelled', 'received')),
    rank          BIGINT NOT NULL,
    provider_id   TEXT,
    error_code    TEXT,
    error_detail  TEXT,
    vendor_code   TEXT,
    created_ms    BIGINT NOT NULL,
    accepted_ms   BIGINT,
    sent_ms       BIGINT,
    delivered_ms  BIGINT,
    read_ms       BIGINT,
    failed_ms     BIGINT,
    changed_ms    BIGINT NOT NULL
);
CREATE INDEX messages_by_provider_id ON messages (provider_id) WHERE provider_id IS NOT NULL;
CREATE INDEX messages_by_command ON messages (command_id) WHERE command_id IS NOT NULL;
CREATE INDEX messages_by_peer ON messages (peer, id);

-- Idempotency keys of the messaging API.
CREATE TABLE api_requests (
    key          TEXT PRIMARY KEY,
    fingerprint  TEXT NOT NULL,
    message_id   TEXT NOT NULL,
    created_ms   BIGINT NOT NULL
);

-- Durable work. Finished jobs are deleted; what they did is told by messages, commands and attempts.
CREATE TABLE jobs (
    id            TEXT PRIMARY KEY,
    queue         TEXT NOT NULL,
    lane          TEXT NOT NULL,
    kind          TEXT NOT NULL,
    subject       TEXT NOT NULL,
    seq           TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('ready', 'started', 'unclear', 'dead')),
    revision      BIGINT NOT NULL,
    tries         BIGINT NOT NULL,
    due_ms        BIGINT NOT NULL,
    not_after_ms  BIGINT,
    started_ms    BIGINT,
    started_by    TEXT,
    reason        TEXT,
    changed_ms    BIGINT NOT NULL
);
CREATE INDEX jobs_by_lane ON jobs (queue, lane, seq) WHERE state <> 'dead';
CREATE INDEX jobs_dead ON jobs (changed_ms) WHERE state = 'dead';

-- Every try, with the vendor's raw words.
CREATE TABLE attempts (
    id             TEXT PRIMARY KEY,
    job_id         TEXT NOT NULL,
    message_id     TEXT,
    at_ms          BIGINT NOT NULL,
    duration_ms    BIGINT NOT NULL,
    outcome        TEXT NOT NULL,
    failure_class  TEXT,
    vendor_code    TEXT,
    raw            TEXT
);
CREATE INDEX attempts_by_message ON attempts (message_id) WHERE message_id IS NOT NULL;
