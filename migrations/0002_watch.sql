-- Every state ends (docs/adr/0005), and a channel that is resumed may start slowly.

-- What its card was told of a message whose next confirmation did not come: nothing, that none has come (`told`), or that
-- none is awaited any more (`closed`). A move of the message takes it back. `changed_ms` is when it entered its state.
ALTER TABLE messages ADD COLUMN silence TEXT NOT NULL DEFAULT '' CHECK (silence IN ('', 'told', 'closed'));
-- When the card was told last.
ALTER TABLE messages ADD COLUMN silent_ms BIGINT;
-- Messages that something is still awaited of: few beside the history.
CREATE INDEX messages_open ON messages (channel_id, state, silence, changed_ms)
    WHERE state IN ('queued', 'undecided', 'accepted', 'sent') AND silence <> 'closed';

-- How a resumed channel comes back to its pace: JSON; NULL when it sends as fast as it may.
ALTER TABLE channels ADD COLUMN ramp TEXT;
