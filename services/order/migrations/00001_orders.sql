-- +goose Up
-- AUTOINCREMENT: an ID is never given twice, even after its order was deleted.
-- The users are another service's, so there is no foreign key.
CREATE TABLE orders (
  order_id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id  INTEGER NOT NULL,
  item     TEXT NOT NULL
) STRICT;

CREATE INDEX orders_of_user ON orders (user_id, order_id);

-- +goose Down
DROP TABLE orders;
