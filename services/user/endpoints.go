package user

import (
	"context"

	"github.com/go-kit/kit/endpoint"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/paging"
)

// Endpoints are the service's operations as go-kit endpoints, to put middleware
// around.
type Endpoints struct {
	List   endpoint.Endpoint // a ListRequest to a ListResponse
	Find   endpoint.Endpoint // a FindRequest to a User
	Create endpoint.Endpoint // a CreateRequest to a CreateResponse
}

// ListRequest asks for a page of the users.
type ListRequest struct{ Page paging.Page }

// ListResponse has it.
type ListResponse struct {
	ListRequest // that it answers
	Users       []User
	More        bool // there are users after these
}

// FindRequest asks for one user.
type FindRequest struct{ ID int64 }

// CreateRequest asks for a new user.
type CreateRequest struct {
	Name string
	Once idempotency.Request // the zero value: it has no key
}

// CreateResponse has the answer for a new user, or the one that was given before.
type CreateResponse struct{ Answer idempotency.Answer }

// NewEndpoints returns the service's endpoints.
func NewEndpoints(s Service) Endpoints {
	return Endpoints{
		List: func(ctx context.Context, request any) (any, error) {
			r := request.(ListRequest)
			found, err := s.Users(ctx, r.Page.After, r.Page.Limit+1)
			users, more := paging.Cut(found, r.Page.Limit)
			return ListResponse{ListRequest: r, Users: users, More: more}, err
		},
		Find: func(ctx context.Context, request any) (any, error) {
			return s.User(ctx, request.(FindRequest).ID)
		},
		Create: func(ctx context.Context, request any) (any, error) {
			r := request.(CreateRequest)
			if r.Once.Keyed() {
				answer, err := s.CreateOnce(ctx, r.Name, r.Once, tellCreated)
				return CreateResponse{answer}, err
			}
			u, err := s.Create(ctx, r.Name)
			if err != nil {
				return nil, err
			}
			answer, err := tellCreated(u)
			return CreateResponse{answer}, err
		},
	}
}
