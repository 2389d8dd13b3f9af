-- Calls of robots that never came: Bitrix24 makes each once.

-- What an administrator wants done about them in a portal; without a row they are shown.
CREATE TABLE lost_call_rules (
    portal_id   TEXT PRIMARY KEY REFERENCES portals (id),
    mode        TEXT NOT NULL CHECK (mode IN ('off', 'ask', 'replay')),
    changed_ms  BIGINT NOT NULL
);

-- How far the history of stages has been read, by kind of card; `trouble` is the portal's code when it refused to tell.
CREATE TABLE stage_looks (
    portal_id  TEXT NOT NULL REFERENCES portals (id),
    kind       TEXT NOT NULL,
    after_id   BIGINT NOT NULL,
    looked_ms  BIGINT NOT NULL,
    trouble    TEXT NOT NULL,
    PRIMARY KEY (portal_id, kind)
);

-- Robots that have called for cards on a stage: how often, how often not though others did, and what the last call
-- asked for (its command, a digest of the work, and how many calls in a row for different cards asked for the same).
CREATE TABLE stage_robots (
    portal_id  TEXT NOT NULL REFERENCES portals (id),
    kind       TEXT NOT NULL,
    stage      TEXT NOT NULL,
    robot      TEXT NOT NULL,
    seen       BIGINT NOT NULL,
    skipped    BIGINT NOT NULL,
    command_id TEXT NOT NULL,
    card       TEXT NOT NULL,
    print      TEXT NOT NULL,
    same       BIGINT NOT NULL,
    seen_ms    BIGINT NOT NULL,
    PRIMARY KEY (portal_id, kind, stage, robot)
);

-- Entries into such stages for which a robot did not call.
CREATE TABLE lost_calls (
    portal_id   TEXT NOT NULL REFERENCES portals (id),
    id          TEXT NOT NULL,
    card        TEXT NOT NULL,
    stage       TEXT NOT NULL,
    robot       TEXT NOT NULL,
    entered_ms  BIGINT NOT NULL,
    found_ms    BIGINT NOT NULL,
    sure        BIGINT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('open', 'replayed', 'came', 'moved_on', 'dismissed')),
    changed_ms  BIGINT NOT NULL,
    PRIMARY KEY (portal_id, id)
);
CREATE INDEX lost_calls_by_card ON lost_calls (portal_id, card, entered_ms);
CREATE INDEX lost_calls_open ON lost_calls (portal_id, found_ms) WHERE state = 'open';

-- Calls of a portal by time, to compare with its history.
CREATE INDEX commands_by_time ON commands (portal_id, received_ms);
-- Portals whose robots have called lately.
CREATE INDEX portal_signs_by_time ON portal_signs (kind, at_ms);

-- Lines that portals offer as senders of short messages. `template` (name:language) goes out when the messenger's window is
-- closed; empty without one.
CREATE TABLE sms_senders (
    portal_id   TEXT NOT NULL REFERENCES portals (id),
    messenger   TEXT NOT NULL,
    line_id     TEXT NOT NULL REFERENCES lines (id),
    template    TEXT NOT NULL,
    changed_ms  BIGINT NOT NULL,
    PRIMARY KEY (portal_id, messenger, line_id)
);
