-- Words that automations put on dialogs.
CREATE TABLE dialog_tags (
    channel_id  TEXT NOT NULL REFERENCES channels (id),
    peer        TEXT NOT NULL,
    tag         TEXT NOT NULL,
    set_ms      BIGINT NOT NULL,
    PRIMARY KEY (channel_id, peer, tag)
);
CREATE INDEX dialog_tags_by_peer ON dialog_tags (peer);
