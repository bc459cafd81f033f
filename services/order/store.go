package order

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"

	"github.com/rollcall-mesh/rollcall/observability/tracing"
	"github.com/rollcall-mesh/rollcall/services/internal/fault"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// SQLite is a Store in a SQLite database, which several processes on one
// machine may share.
type SQLite struct{ db *sqlite.DB }

// OpenSQLite opens the store at path, as sqlite.Open does. On first start it
// holds the orders 101 Laptop and 102 Mouse of user 1, and 103 Keyboard of
// user 2.
func OpenSQLite(ctx context.Context, path string) (*SQLite, error) {
	db, err := sqlite.Open(ctx, path, migrations)
	if err != nil {
		return nil, err
	}
	return &SQLite{db: db}, nil
}

const selectOrders = "SELECT order_id, item FROM orders WHERE user_id = ? AND order_id > ? ORDER BY order_id LIMIT ?"

// Orders returns the first of a user's orders whose ID is over after, by their
// IDs, limit at most; none is not nil.
func (s *SQLite) Orders(ctx context.Context, user, after int64, limit int) (orders []Order, err error) {
	err = s.db.Read(ctx, func(from *sql.DB) (err error) {
		orders, err = sqlite.All(ctx, from, func(o *Order) []any { return []any{&o.ID, &o.Item} }, selectOrders, user, after, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the orders of user %d: %w", user, err)
	}
	return orders, nil
}

// Order returns one order of a user.
func (s *SQLite) Order(ctx context.Context, user, order int64) (Order, error) {
	o := Order{ID: order}
	err := s.db.Read(ctx, func(from *sql.DB) error {
		return from.QueryRowContext(ctx, "SELECT item FROM orders WHERE order_id = ? AND user_id = ?", order, user).Scan(&o.Item)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return Order{}, fmt.Errorf("read order %d of user %d: %w", order, user, ErrNotFound)
	}
	if err != nil {
		return Order{}, fmt.Errorf("read order %d of user %d: %w", order, user, err)
	}
	return o, nil
}

// Place adds an order.
func (s *SQLite) Place(ctx context.Context, user int64, item string) (Order, error) {
	var o Order
	err := s.db.Write(ctx, func(tx *sql.Tx) (err error) {
		o, err = insert(ctx, tx, user, item)
		return err
	})
	if err != nil {
		return Order{}, fmt.Errorf("place an order for user %d: %w", user, err)
	}
	fault.Point("order.committed")
	return o, nil
}

// PlaceOnce adds an order and the key of its request, in one transaction.
func (s *SQLite) PlaceOnce(ctx context.Context, user int64, item string, r idempotency.Request, tell Tell) (idempotency.Answer, error) {
	var answer idempotency.Answer
	err := s.db.Write(ctx, func(tx *sql.Tx) (err error) {
		answer, err = idempotency.Do(ctx, tx, r, fault.Now(), func() (idempotency.Answer, error) {
			o, err := insert(ctx, tx, user, item)
			if err != nil {
				return idempotency.Answer{}, err
			}
			return tell(user, o)
		})
		return err
	})
	if err != nil {
		return idempotency.Answer{}, fmt.Errorf("place an order for user %d: %w", user, err)
	}
	fault.Point("order.committed")
	return answer, nil
}

// Placed returns the answer that was kept for r.
func (s *SQLite) Placed(ctx context.Context, r idempotency.Request) (answer idempotency.Answer, found bool, err error) {
	ctx, end := tracing.Start(ctx, "idempotency look-up")
	defer func() { end(err) }()
	err = s.db.Read(ctx, func(from *sql.DB) (err error) {
		answer, found, err = idempotency.Find(ctx, from, r, fault.Now())
		return err
	})
	return answer, found, err
}

func insert(ctx context.Context, tx *sql.Tx, user int64, item string) (Order, error) {
	o := Order{Item: item}
	err := tx.QueryRowContext(ctx, "INSERT INTO orders (user_id, item) VALUES (?, ?) RETURNING order_id", user, item).Scan(&o.ID)
	return o, err
}

// Ping reports whether the store answers.
func (s *SQLite) Ping(ctx context.Context) error { return s.db.Ping(ctx) }

// Close closes the store. Closing again does nothing.
func (s *SQLite) Close() error { return s.db.Close() }
