-- Chats of amoCRM.

-- The CRM's own name of the client of a chat that an operator began; empty where the client wrote first.
ALTER TABLE chats ADD COLUMN crm_person TEXT NOT NULL DEFAULT '';

-- Whose account a hook of the chats is of: its address names what the account was connected under.
CREATE INDEX registrations_by_fingerprint ON registrations (key, fingerprint);
