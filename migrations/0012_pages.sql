-- Pages inside a CRM.

-- When a portal last called us, by what it called with; written down at most once a minute, so it is no log.
CREATE TABLE portal_signs (
    portal_id  TEXT NOT NULL REFERENCES portals (id),
    kind       TEXT NOT NULL CHECK (kind IN ('event', 'robot', 'test')),
    at_ms      BIGINT NOT NULL,
    PRIMARY KEY (portal_id, kind)
);

-- Messages that people wrote on a card's page: no command made them, so this is how a card finds whom it wrote to, and
-- a cleaned portal what to delete.
CREATE INDEX messages_by_page ON messages (portal_id, card) WHERE portal_id IS NOT NULL AND command_id IS NULL;
