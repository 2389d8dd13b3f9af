-- Messages that went to a person past the chat in which operators answer: sent by a robot or the API, or typed on the
-- phone. They are shown there once, as an employee's; the CRM then tells of them as if they had been written there, and
-- what is told must not be sent again (docs/adr/0011).
--
-- `author` is the employee, `print` a digest of the words as the CRM tells them back; both empty until the first call.
-- `calls` is how often showing was tried, `heard` how many echoes were recognised, `echoes` the CRM's numbers of them
-- between commas. `until_ms` is the last moment at which an echo may have been raised.
CREATE TABLE chat_mirrors (
    message_id  TEXT PRIMARY KEY,
    channel_id  TEXT NOT NULL REFERENCES channels (id),
    peer        TEXT NOT NULL,
    portal_id   TEXT NOT NULL REFERENCES portals (id),
    author      TEXT NOT NULL,
    print       TEXT NOT NULL,
    calls       BIGINT NOT NULL,
    heard       BIGINT NOT NULL,
    echoes      TEXT NOT NULL,
    until_ms    BIGINT NOT NULL,
    asked_ms    BIGINT NOT NULL
);
CREATE INDEX chat_mirrors_by_chat ON chat_mirrors (channel_id, peer, print);
CREATE INDEX chat_mirrors_by_portal ON chat_mirrors (portal_id);
