-- Chats of messengers inside a CRM: where they stand, which dialogs have one, and what was written there by us.

-- Where the chats of one line and messenger stand: in Bitrix24 `place` is the number of the open line. A line's chats of
-- one messenger stand in one place only, so that no client is answered twice.
CREATE TABLE chat_lines (
    portal_id   TEXT NOT NULL REFERENCES portals (id),
    messenger   TEXT NOT NULL,
    place       TEXT NOT NULL,
    line_id     TEXT NOT NULL REFERENCES lines (id),
    changed_ms  BIGINT NOT NULL,
    PRIMARY KEY (portal_id, messenger, place)
);
CREATE UNIQUE INDEX chat_lines_by_line ON chat_lines (line_id, messenger);

-- Dialogs that have a chat. `crm_chat` is the CRM's own number of it, empty until the CRM has told.
CREATE TABLE chats (
    channel_id  TEXT NOT NULL REFERENCES channels (id),
    peer        TEXT NOT NULL,
    portal_id   TEXT NOT NULL REFERENCES portals (id),
    messenger   TEXT NOT NULL,
    place       TEXT NOT NULL,
    crm_chat    TEXT NOT NULL,
    changed_ms  BIGINT NOT NULL,
    PRIMARY KEY (channel_id, peer)
);
CREATE INDEX chats_by_peer ON chats (peer);
CREATE INDEX chats_by_portal ON chats (portal_id);
