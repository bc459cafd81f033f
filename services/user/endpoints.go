package user

import (
	"context"

	"github.com/go-kit/kit/endpoint"
)

// Endpoints are the service's operations as go-kit endpoints, to put middleware
// around. Both answer with a User.
type Endpoints struct {
	Find   endpoint.Endpoint // takes a FindRequest
	Create endpoint.Endpoint // takes a CreateRequest
}

// FindRequest asks for one user.
type FindRequest struct{ ID int64 }

// CreateRequest asks for a new user.
type CreateRequest struct{ Name string }

// NewEndpoints returns the service's endpoints.
func NewEndpoints(s Service) Endpoints {
	return Endpoints{
		Find: func(ctx context.Context, request any) (any, error) {
			return s.User(ctx, request.(FindRequest).ID)
		},
		Create: func(ctx context.Context, request any) (any, error) {
			return s.Create(ctx, request.(CreateRequest).Name)
		},
	}
}
