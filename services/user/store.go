package user

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
// holds the users 1 Alice, 2 Bob and 3 Carol.
func OpenSQLite(ctx context.Context, path string) (*SQLite, error) {
	db, err := sqlite.Open(ctx, path, migrations)
	if err != nil {
		return nil, err
	}
	return &SQLite{db: db}, nil
}

const selectUsers = "SELECT id, name FROM users WHERE id > ? ORDER BY id LIMIT ?"

// Users returns the first users whose ID is over after, by their IDs, limit at
// most; none is not nil.
func (s *SQLite) Users(ctx context.Context, after int64, limit int) (users []User, err error) {
	err = s.db.Read(ctx, func(from *sql.DB) (err error) {
		users, err = sqlite.All(ctx, from, func(u *User) []any { return []any{&u.ID, &u.Name} }, selectUsers, after, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	return users, nil
}

// User returns the user with the ID.
func (s *SQLite) User(ctx context.Context, id int64) (User, error) {
	u := User{ID: id}
	err := s.db.Read(ctx, func(from *sql.DB) error {
		return from.QueryRowContext(ctx, "SELECT name FROM users WHERE id = ?", id).Scan(&u.Name)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, fmt.Errorf("read user %d: %w", id, ErrNotFound)
	}
	if err != nil {
		return User{}, fmt.Errorf("read user %d: %w", id, err)
	}
	return u, nil
}

// Create adds a user.
func (s *SQLite) Create(ctx context.Context, name string) (User, error) {
	var u User
	err := s.db.Write(ctx, func(tx *sql.Tx) (err error) {
		u, err = insert(ctx, tx, name)
		return err
	})
	if err != nil {
		return User{}, fmt.Errorf("create a user: %w", err)
	}
	return u, nil
}

// CreateOnce adds a user and the key of its request, in one transaction.
func (s *SQLite) CreateOnce(ctx context.Context, name string, r idempotency.Request, tell Tell) (idempotency.Answer, error) {
	var answer idempotency.Answer
	err := s.db.Write(ctx, func(tx *sql.Tx) (err error) {
		answer, err = idempotency.Do(ctx, tx, r, fault.Now(), func() (idempotency.Answer, error) {
			u, err := insert(ctx, tx, name)
			if err != nil {
				return idempotency.Answer{}, err
			}
			return tell(u)
		})
		return err
	})
	if err != nil {
		return idempotency.Answer{}, fmt.Errorf("create a user: %w", err)
	}
	return answer, nil
}

// Created returns the answer that was kept for r.
func (s *SQLite) Created(ctx context.Context, r idempotency.Request) (answer idempotency.Answer, found bool, err error) {
	ctx, end := tracing.Start(ctx, "idempotency look-up")
	defer func() { end(err) }()
	err = s.db.Read(ctx, func(from *sql.DB) (err error) {
		answer, found, err = idempotency.Find(ctx, from, r, fault.Now())
		return err
	})
	return answer, found, err
}

func insert(ctx context.Context, tx *sql.Tx, name string) (User, error) {
	u := User{Name: name}
	err := tx.QueryRowContext(ctx, "INSERT INTO users (name) VALUES (?) RETURNING id", name).Scan(&u.ID)
	return u, err
}

// Ping reports whether the store answers.
func (s *SQLite) Ping(ctx context.Context) error { return s.db.Ping(ctx) }

// Close closes the store. Closing again does nothing.
func (s *SQLite) Close() error { return s.db.Close() }
