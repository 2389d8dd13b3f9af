-- Guards of lines and actions: deadlines, newer messages instead of older ones, no text twice, quiet hours.

-- Settings of a line as JSON; an empty object is the configuration's own.
ALTER TABLE lines ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';

-- Which message last took which text to which person; only rows of lines and actions that ask for it. The key is a hash
-- of line, person and content, so neither phone nor text stands here.
CREATE TABLE sent_texts (
    mark        TEXT PRIMARY KEY,
    message_id  TEXT NOT NULL,
    sent_ms     BIGINT NOT NULL
);
CREATE INDEX sent_texts_by_age ON sent_texts (sent_ms);

-- Which command a robot last gave for a card and a person; only rows of robots that replace their waiting messages. The
-- key is a hash of portal, card, robot and person.
CREATE TABLE robot_turns (
    key         TEXT PRIMARY KEY,
    command_id  TEXT NOT NULL,
    given_ms    BIGINT NOT NULL
);
CREATE INDEX robot_turns_by_age ON robot_turns (given_ms);
