-- What changes at every step of a message must not stand in an index, or PostgreSQL writes all indexes of the row anew each
-- time, and SQLite some of them. So indexes name what changes once or twice in a row's life (docs/PERFORMANCE.md).

-- 1 while something is still awaited of a message: it waits to be sent, or for a confirmation, and is not closed.
ALTER TABLE messages ADD COLUMN awaited BIGINT NOT NULL DEFAULT 0;
UPDATE messages SET awaited = 1 WHERE state IN ('queued', 'undecided', 'accepted', 'sent') AND silence <> 'closed';
DROP INDEX messages_open;
CREATE INDEX messages_awaited ON messages (id) WHERE awaited = 1;

-- When a job died; NULL while it lives.
ALTER TABLE jobs ADD COLUMN dead_ms BIGINT;
UPDATE jobs SET dead_ms = changed_ms WHERE state = 'dead';
DROP INDEX jobs_dead;
CREATE INDEX jobs_dead ON jobs (dead_ms) WHERE dead_ms IS NOT NULL;
DROP INDEX jobs_by_lane;
CREATE INDEX jobs_by_lane ON jobs (queue, lane, seq) WHERE dead_ms IS NULL;

-- A CRM that has its answer waits for none: `answer_by_ms` is NULL from then on.
UPDATE commands SET answer_by_ms = NULL WHERE state NOT IN ('new', 'open') AND answer_by_ms IS NOT NULL;
DROP INDEX commands_waiting;
CREATE INDEX commands_waiting ON commands (answer_by_ms) WHERE answer_by_ms IS NOT NULL;
