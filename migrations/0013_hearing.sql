-- Until when a process may have left callbacks of providers unheard, because the database did not answer it or it stood
-- still; as it tells itself afterwards. Whoever decides that an echo will not come any more asks all processes.
ALTER TABLE workers ADD COLUMN deaf_ms BIGINT NOT NULL DEFAULT 0;
