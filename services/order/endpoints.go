package order

import (
	"context"

	"github.com/go-kit/kit/endpoint"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/paging"
)

// Endpoints are the service's operations as go-kit endpoints, to put middleware
// around.
type Endpoints struct {
	List  endpoint.Endpoint // a ListRequest to a ListResponse
	Find  endpoint.Endpoint // a FindRequest to a FindResponse
	Place endpoint.Endpoint // a PlaceRequest to a PlaceResponse
}

// ListRequest asks for a page of a user's orders.
type ListRequest struct {
	User int64
	Page paging.Page
}

// ListResponse has it.
type ListResponse struct {
	ListRequest // that it answers
	Orders      []Order
	More        bool // there are orders after these
	Degraded    bool
}

// FindRequest asks for one order of a user.
type FindRequest struct{ User, Order int64 }

// FindResponse has it.
type FindResponse struct {
	Order    Order
	Degraded bool
}

// PlaceRequest asks for a new order.
type PlaceRequest struct {
	User int64
	Item string
	Once idempotency.Request // the zero value: it has no key
}

// PlaceResponse has the answer for a new order, or the one that was given before.
type PlaceResponse struct{ Answer idempotency.Answer }

// NewEndpoints returns the service's endpoints.
func NewEndpoints(s Service) Endpoints {
	return Endpoints{
		List: func(ctx context.Context, request any) (any, error) {
			r := request.(ListRequest)
			found, degraded, err := s.Orders(ctx, r.User, r.Page.After, r.Page.Limit+1)
			orders, more := paging.Cut(found, r.Page.Limit)
			return ListResponse{ListRequest: r, Orders: orders, More: more, Degraded: degraded}, err
		},
		Find: func(ctx context.Context, request any) (any, error) {
			r := request.(FindRequest)
			order, degraded, err := s.Order(ctx, r.User, r.Order)
			return FindResponse{Order: order, Degraded: degraded}, err
		},
		Place: func(ctx context.Context, request any) (any, error) {
			r := request.(PlaceRequest)
			if r.Once.Keyed() {
				answer, err := s.PlaceOnce(ctx, r.User, r.Item, r.Once, tellPlaced)
				return PlaceResponse{answer}, err
			}
			order, err := s.Place(ctx, r.User, r.Item)
			if err != nil {
				return nil, err
			}
			answer, err := tellPlaced(r.User, order)
			return PlaceResponse{answer}, err
		},
	}
}
