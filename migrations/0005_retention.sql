-- What the store remembers about itself: that it is a copy of the past, that it was moved away, when it was last tidied.
-- `value` is a word or a time in milliseconds; `changed_ms` is when the note was made.
CREATE TABLE store_notes (
    key         TEXT PRIMARY KEY,
    value       TEXT NOT NULL,
    changed_ms  BIGINT NOT NULL
);
