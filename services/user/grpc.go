package user

import (
	"context"

	"github.com/rollcall-mesh/rollcall/services/internal/rpc"
	"github.com/rollcall-mesh/rollcall/services/user/userv1"
)

// NewGRPCServer binds the endpoints to gRPC. Its errors are those of the HTTP
// binding, for rpc.Errors to make statuses of. replayed is called for each answer
// that was given before.
func NewGRPCServer(e Endpoints, replayed func()) userv1.UserServiceServer {
	e.Find = sayNotFound(e.Find)
	return &grpcServer{e: e, replayed: replayed}
}

type grpcServer struct {
	userv1.UnimplementedUserServiceServer
	e        Endpoints
	replayed func()
}

func (s *grpcServer) ListUsers(ctx context.Context, r *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error) {
	page, err := rpc.Page(r.GetAfter(), r.GetLimit())
	if err != nil {
		return nil, err
	}
	response, err := s.e.List(ctx, ListRequest{Page: page})
	if err != nil {
		return nil, err
	}
	found, answer := response.(ListResponse), &userv1.ListUsersResponse{}
	for _, u := range found.Users {
		answer.Users = append(answer.Users, toProto(u))
	}
	if found.More {
		answer.NextAfter = found.Users[len(found.Users)-1].ID
	}
	return answer, nil
}

func (s *grpcServer) GetUser(ctx context.Context, r *userv1.GetUserRequest) (*userv1.User, error) {
	if err := rpc.ID("id", r.GetId()); err != nil {
		return nil, err
	}
	response, err := s.e.Find(ctx, FindRequest{ID: r.GetId()})
	if err != nil {
		return nil, err
	}
	return toProto(response.(User)), nil
}

func (s *grpcServer) CreateUser(ctx context.Context, r *userv1.CreateUserRequest) (*userv1.User, error) {
	once, err := rpc.Once(ctx, r)
	if err != nil {
		return nil, err
	}
	response, err := s.e.Create(ctx, CreateRequest{Name: r.GetName(), Once: once})
	if err != nil {
		return nil, err
	}
	var u User
	if err := rpc.Kept(ctx, response.(CreateResponse).Answer, &u, s.replayed); err != nil {
		return nil, err
	}
	return toProto(u), nil
}

func toProto(u User) *userv1.User { return &userv1.User{Id: u.ID, Name: u.Name} }
