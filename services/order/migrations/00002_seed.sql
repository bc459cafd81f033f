-- +goose Up
INSERT INTO orders (order_id, user_id, item) VALUES
  (101, 1, 'Laptop'),
  (102, 1, 'Mouse'),
  (103, 2, 'Keyboard');

-- +goose Down
DELETE FROM orders WHERE order_id IN (101, 102, 103);
