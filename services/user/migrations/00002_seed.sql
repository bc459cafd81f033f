-- +goose Up
INSERT INTO users (id, name) VALUES (1, 'Alice'), (2, 'Bob'), (3, 'Carol');

-- +goose Down
DELETE FROM users WHERE id IN (1, 2, 3);
