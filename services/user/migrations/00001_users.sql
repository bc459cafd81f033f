-- +goose Up
-- AUTOINCREMENT: an ID is never given twice, even after its user was deleted.
CREATE TABLE users (
  id   INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL
) STRICT;

-- +goose Down
DROP TABLE users;
