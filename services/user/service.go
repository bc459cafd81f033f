// Package user is the service that knows the users: a plain Go [Service],
// go-kit [Endpoints] around it, and their binding to HTTP, [NewHTTPHandler].
// Users live in a [Store]; [OpenSQLite] gives one. Everything here is safe for
// any number of goroutines.
package user

import (
	"context"
	"errors"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/text"
)

// User is one user, as JSON shows it.
type User struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// ErrNotFound is the error, wrapped, of whoever asks for a user that is not
// there.
var ErrNotFound = errors.New("no such user")

// Service is what can be done with users. An ID is at least 1.
type Service interface {
	// Users returns the first users whose ID is over after, the oldest first,
	// limit at most; none is not nil.
	Users(ctx context.Context, after int64, limit int) ([]User, error)
	// User returns the user with the ID, or an error that wraps ErrNotFound.
	User(ctx context.Context, id int64) (User, error)
	// Create makes a user of the name, under an ID that was never used before.
	// A name that text.Check refuses is its *text.InvalidError.
	Create(ctx context.Context, name string) (User, error)
	// CreateOnce is Create for a request with a key: the first one creates the
	// user, and the answer that tell makes of it is kept; each later one is
	// given that answer. A key that was used with another body is
	// idempotency.ErrReused.
	CreateOnce(ctx context.Context, name string, r idempotency.Request, tell Tell) (idempotency.Answer, error)
}

// Tell makes the answer of a new user, which is kept with its request's key.
type Tell func(User) (idempotency.Answer, error)

// Store keeps users. An error for one that is not there wraps ErrNotFound.
type Store interface {
	Users(ctx context.Context, after int64, limit int) ([]User, error)
	User(ctx context.Context, id int64) (User, error)
	Create(ctx context.Context, name string) (User, error)
	// CreateOnce keeps user and answer together, or neither.
	CreateOnce(ctx context.Context, name string, r idempotency.Request, tell Tell) (idempotency.Answer, error)
	// Created returns the answer that CreateOnce kept for r, and whether there is one.
	Created(ctx context.Context, r idempotency.Request) (idempotency.Answer, bool, error)
}

// NewService returns the service over a store.
func NewService(store Store) Service { return service{store} }

type service struct{ store Store }

func (s service) Users(ctx context.Context, after int64, limit int) ([]User, error) {
	return s.store.Users(ctx, after, limit)
}

func (s service) User(ctx context.Context, id int64) (User, error) {
	return s.store.User(ctx, id)
}

func (s service) Create(ctx context.Context, name string) (User, error) {
	if err := text.Check("name", name); err != nil {
		return User{}, err
	}
	return s.store.Create(ctx, name)
}

func (s service) CreateOnce(ctx context.Context, name string, r idempotency.Request, tell Tell) (idempotency.Answer, error) {
	// First, since a full disk stops no answer that was given before.
	if kept, found, err := s.store.Created(ctx, r); err != nil || found {
		return kept, err
	}
	if err := text.Check("name", name); err != nil {
		return idempotency.Answer{}, err
	}
	return s.store.CreateOnce(ctx, name, r, tell)
}
