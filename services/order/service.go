// Package order is the service that knows who ordered what: a plain Go
// [Service], go-kit [Endpoints] around it, and their binding to HTTP,
// [NewHTTPHandler]. Orders live in a [Store]; [OpenSQLite] gives one. Whether a
// user exists is the user service's to say, each time: see [Users]. Everything
// here is safe for any number of goroutines.
package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/text"
)

// Order is one order, as JSON shows it.
type Order struct {
	ID   int64  `json:"order_id"`
	Item string `json:"item"`
}

var (
	// ErrUserNotFound is the error, wrapped, of a request for a user that the
	// user service does not know.
	ErrUserNotFound = errors.New("no such user")
	// ErrNotFound is the error, wrapped, of a request for an order that its
	// user does not have.
	ErrNotFound = errors.New("no such order")
	// ErrUsersUnavailable is the error, wrapped, of a request that needs to
	// know whether a user exists while the user service does not answer.
	ErrUsersUnavailable = errors.New("the user service does not answer")
)

// Service is what can be done with orders. An ID is at least 1.
//
// An answer is degraded if the user service could not be asked, and the user's
// orders prove that there is such a user; so it is true all the same, unless the
// user is gone since.
type Service interface {
	// Orders returns the first of a user's orders whose ID is over after, the
	// oldest first, limit at most; none is not nil.
	Orders(ctx context.Context, user, after int64, limit int) (orders []Order, degraded bool, err error)
	// Order returns one order of a user. That there is no such order can be
	// said degraded too: then the error wraps ErrUsersUnavailable as well as
	// ErrNotFound.
	Order(ctx context.Context, user, order int64) (o Order, degraded bool, err error)
	// Place makes an order of an item, under an ID that was never used before.
	// An item that text.Check refuses is its *text.InvalidError.
	Place(ctx context.Context, user int64, item string) (Order, error)
	// PlaceOnce is Place for a request with a key: the first one places the
	// order, and the answer that tell makes of it is kept; each later one is
	// given that answer, whether user answers or not. A key that was used with
	// another body is idempotency.ErrReused.
	PlaceOnce(ctx context.Context, user int64, item string, r idempotency.Request, tell Tell) (idempotency.Answer, error)
}

// Tell makes the answer of a new order, which is kept with its request's key.
type Tell func(user int64, o Order) (idempotency.Answer, error)

// Store keeps orders. An error for one that is not there wraps ErrNotFound.
type Store interface {
	Orders(ctx context.Context, user, after int64, limit int) ([]Order, error)
	Order(ctx context.Context, user, order int64) (Order, error)
	Place(ctx context.Context, user int64, item string) (Order, error)
	// PlaceOnce keeps order and answer together, or neither.
	PlaceOnce(ctx context.Context, user int64, item string, r idempotency.Request, tell Tell) (idempotency.Answer, error)
	// Placed returns the answer that PlaceOnce kept for r, and whether there is one.
	Placed(ctx context.Context, r idempotency.Request) (idempotency.Answer, bool, error)
}

// Users says whether a user exists. An error means that it could not find out.
type Users interface {
	Exists(ctx context.Context, user int64) (bool, error)
}

// Config is what a Service is made of.
type Config struct {
	Store Store // required
	Users Users // required
	// Degraded is told of each degraded answer. nil means nobody.
	Degraded func()
}

// NewService returns the service.
func NewService(cfg Config) (Service, error) {
	if cfg.Store == nil {
		return nil, errors.New("order: Store is nil; want one")
	}
	if cfg.Users == nil {
		return nil, errors.New("order: Users is nil; want one")
	}
	if cfg.Degraded == nil {
		cfg.Degraded = func() {}
	}
	return &service{cfg}, nil
}

type service struct{ cfg Config }

func (s *service) Orders(ctx context.Context, user, after int64, limit int) ([]Order, bool, error) {
	unavailable := s.check(ctx, user, UserTimeout)
	if unavailable != nil && !errors.Is(unavailable, ErrUsersUnavailable) {
		return nil, false, unavailable
	}
	orders, err := s.cfg.Store.Orders(ctx, user, after, limit)
	if err != nil {
		return nil, false, err
	}
	if unavailable == nil {
		return orders, false, nil
	}
	if len(orders) == 0 {
		if err := s.prove(ctx, user, unavailable); err != nil {
			return nil, false, err
		}
	}
	s.cfg.Degraded()
	return orders, true, nil
}

func (s *service) Order(ctx context.Context, user, order int64) (Order, bool, error) {
	unavailable := s.check(ctx, user, UserTimeout)
	if unavailable != nil && !errors.Is(unavailable, ErrUsersUnavailable) {
		return Order{}, false, unavailable
	}
	found, err := s.cfg.Store.Order(ctx, user, order)
	if unavailable == nil || err != nil && !errors.Is(err, ErrNotFound) {
		return found, false, err
	}
	if err != nil {
		if unproved := s.prove(ctx, user, unavailable); unproved != nil {
			return Order{}, false, unproved
		}
		err = fmt.Errorf("%w (%w)", err, unavailable)
	}
	s.cfg.Degraded()
	return found, true, err
}

// prove returns nil for a user with an order: any of them proves the user. Else
// it returns unavailable.
func (s *service) prove(ctx context.Context, user int64, unavailable error) error {
	orders, err := s.cfg.Store.Orders(ctx, user, 0, 1)
	if err == nil && len(orders) == 0 {
		return unavailable
	}
	return err
}

func (s *service) Place(ctx context.Context, user int64, item string) (Order, error) {
	if err := s.mayPlace(ctx, user, item); err != nil {
		return Order{}, err
	}
	return s.cfg.Store.Place(ctx, user, item)
}

func (s *service) PlaceOnce(ctx context.Context, user int64, item string, r idempotency.Request, tell Tell) (idempotency.Answer, error) {
	if kept, found, err := s.cfg.Store.Placed(ctx, r); err != nil || found {
		return kept, err
	}
	if err := s.mayPlace(ctx, user, item); err != nil {
		return idempotency.Answer{}, err
	}
	return s.cfg.Store.PlaceOnce(ctx, user, item, r, tell)
}

// mayPlace is an error unless the user may order the item.
func (s *service) mayPlace(ctx context.Context, user int64, item string) error {
	if err := text.Check("item", item); err != nil {
		return err
	}
	// A read gives up soon, since it has an answer to fall back on. This has
	// none, and to ask once more is harmless.
	began := time.Now()
	err := s.check(ctx, user, placeTimeout)
	if left := placeTimeout - time.Since(began); errors.Is(err, ErrUsersUnavailable) && left > 0 {
		err = s.check(ctx, user, left)
	}
	return err
}

// placeTimeout is how long both questions of mayPlace may take together. It lies
// below the second that callers give each try of theirs, as UserTimeout does.
const placeTimeout = 900 * time.Millisecond

// check returns nil for a user that exists, and an error that wraps
// ErrUserNotFound for one that does not, ErrUsersUnavailable when nobody can say
// so, and the context's own error for a request that is over.
func (s *service) check(ctx context.Context, user int64, within time.Duration) error {
	asking, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	exists, err := s.cfg.Users.Exists(asking, user)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("check user %d: %w (%w)", user, context.Cause(ctx), err)
	case err != nil:
		return fmt.Errorf("check user %d: %w: %w", user, ErrUsersUnavailable, err)
	case !exists:
		return fmt.Errorf("check user %d: %w", user, ErrUserNotFound)
	}
	return nil
}
