-- Messengers that know people by chats instead of phones.

-- Which chat a phone leads to: the person shared their own contact there. A phone has at most one chat on a channel; the
-- last one that shared it counts.
CREATE TABLE chat_phones (
    channel_id  TEXT NOT NULL REFERENCES channels (id),
    phone       TEXT NOT NULL,
    peer        TEXT NOT NULL,
    shared_ms   BIGINT NOT NULL,
    PRIMARY KEY (channel_id, phone)
);
CREATE INDEX chat_phones_by_phone ON chat_phones (phone);
