-- +goose Up
-- What was answered to a request with an Idempotency-Key. made_at is in Unix
-- seconds.
CREATE TABLE idempotency_keys (
  scope    TEXT NOT NULL,
  key      TEXT NOT NULL,
  digest   BLOB NOT NULL,
  status   INTEGER NOT NULL,
  location TEXT NOT NULL,
  body     BLOB NOT NULL,
  made_at  INTEGER NOT NULL,
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (made_at);

-- +goose Down
DROP TABLE idempotency_keys;
