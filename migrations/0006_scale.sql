-- What is looked for all the time is found by an index, so that a hundred thousand quiet portals and years of history cost
-- nothing (docs/SCALING.md). Each of these indexes is small: few queues have news, few portals wait, few channels pause.

-- Queues with news, and queues that somebody owns: looked for twice a second.
CREATE INDEX queues_with_news ON queues (next_due_ms) WHERE next_due_ms IS NOT NULL;
CREATE INDEX queues_by_owner ON queues (owner) WHERE owner IS NOT NULL;

-- The watch asks by state and age. With the channel in front it asked once per channel there is.
DROP INDEX messages_open;
CREATE INDEX messages_open ON messages (state, silence, changed_ms)
    WHERE state IN ('queued', 'undecided', 'accepted', 'sent') AND silence <> 'closed';

-- Which providers there are, and how many channels are paused.
CREATE INDEX channels_by_provider ON channels (provider, id);
CREATE INDEX channels_paused ON channels (id) WHERE state = 'paused';

-- Portals whose tokens have died.
CREATE INDEX portals_needing_auth ON portals (id) WHERE state = 'needs_auth';
