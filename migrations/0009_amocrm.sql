-- Consent screens of amoCRM that were opened from here and have not come back. The word is good for one return.
CREATE TABLE authorizations (
    state     TEXT PRIMARY KEY,
    app       TEXT NOT NULL,
    given_ms  BIGINT NOT NULL
);
