-- Signs of life of a process are numbered, because one that was long on its way to the database must not undo a later one;
-- when the last one was given, and when the process left, if it left in order.
ALTER TABLE workers ADD COLUMN beats BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN seen_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN left_ms BIGINT;

-- Since when a process may have left callbacks unheard, without a rest long enough for the vendor's next try (`deaf_ms` is
-- until when). Zero is the beginning of time.
ALTER TABLE workers ADD COLUMN deaf_from_ms BIGINT NOT NULL DEFAULT 0;
