-- What operators did last to messages they had written in chats: changed them, or deleted them. The CRM tells of it late, twice
-- and out of order, so the latest one is remembered here, and only that is carried out.
--
-- `key` is made of the portal and the CRM's number of the message. `command_id` is the command of that change, `raised_ms` when
-- the CRM raised it, `gone` is 1 once the message was deleted: nothing changes it after that.
CREATE TABLE chat_changes (
    key         TEXT PRIMARY KEY,
    portal_id   TEXT NOT NULL REFERENCES portals (id),
    command_id  TEXT NOT NULL,
    raised_ms   BIGINT NOT NULL,
    gone        BIGINT NOT NULL,
    changed_ms  BIGINT NOT NULL
);
CREATE INDEX chat_changes_by_portal ON chat_changes (portal_id);
CREATE INDEX chat_changes_by_command ON chat_changes (command_id);

-- The employee whom the CRM does not take as the author of a message past its chat, because they have left: somebody else is
-- shown then. Empty for nobody.
ALTER TABLE chat_mirrors ADD COLUMN refused TEXT NOT NULL DEFAULT '';
