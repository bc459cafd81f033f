package order

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-kit/kit/endpoint"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/services/internal/rpc"
	"github.com/rollcall-mesh/rollcall/services/order/orderv1"
	"github.com/rollcall-mesh/rollcall/services/user/userv1"
)

// NewGRPCServer binds the endpoints to gRPC. Its errors are those of the HTTP
// binding, for rpc.Errors to make statuses of; an answer that was given without
// the user service has DegradedHeader in its header. replayed is called for each
// answer that was given before.
func NewGRPCServer(e Endpoints, replayed func()) orderv1.OrderServiceServer {
	e.List, e.Find, e.Place = explain(e.List), explain(e.Find), explain(e.Place)
	return &grpcServer{e: e, replayed: replayed}
}

type grpcServer struct {
	orderv1.UnimplementedOrderServiceServer
	e        Endpoints
	replayed func()
}

func (s *grpcServer) ListOrders(ctx context.Context, r *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error) {
	if err := rpc.ID("user_id", r.GetUserId()); err != nil {
		return nil, err
	}
	page, err := rpc.Page(r.GetAfter(), r.GetLimit())
	if err != nil {
		return nil, err
	}
	response, err := s.e.List(ctx, ListRequest{User: r.GetUserId(), Page: page})
	if err != nil {
		return nil, err
	}
	found, answer := response.(ListResponse), &orderv1.ListOrdersResponse{}
	markCall(ctx, found.Degraded)
	for _, o := range found.Orders {
		answer.Orders = append(answer.Orders, toProto(o))
	}
	if found.More {
		answer.NextAfter = found.Orders[len(found.Orders)-1].ID
	}
	return answer, nil
}

func (s *grpcServer) GetOrder(ctx context.Context, r *orderv1.GetOrderRequest) (*orderv1.Order, error) {
	if err := errors.Join(rpc.ID("user_id", r.GetUserId()), rpc.ID("order_id", r.GetOrderId())); err != nil {
		return nil, err
	}
	response, err := s.e.Find(ctx, FindRequest{User: r.GetUserId(), Order: r.GetOrderId()})
	if err != nil {
		return nil, err
	}
	found := response.(FindResponse)
	markCall(ctx, found.Degraded)
	return toProto(found.Order), nil
}

func (s *grpcServer) PlaceOrder(ctx context.Context, r *orderv1.PlaceOrderRequest) (*orderv1.Order, error) {
	if err := rpc.ID("user_id", r.GetUserId()); err != nil {
		return nil, err
	}
	once, err := rpc.Once(ctx, r)
	if err != nil {
		return nil, err
	}
	if once.Keyed() {
		// By HTTP the user is in the path, which is part of the scope.
		once.Scope = fmt.Sprintf("%s %d", once.Scope, r.GetUserId())
	}
	response, err := s.e.Place(ctx, PlaceRequest{User: r.GetUserId(), Item: r.GetItem(), Once: once})
	if err != nil {
		return nil, err
	}
	var o Order
	if err := rpc.Kept(ctx, response.(PlaceResponse).Answer, &o, s.replayed); err != nil {
		return nil, err
	}
	return toProto(o), nil
}

func toProto(o Order) *orderv1.Order { return &orderv1.Order{OrderId: o.ID, Item: o.Item} }

func markCall(ctx context.Context, degraded bool) {
	if degraded {
		rpc.Set(ctx, DegradedHeader, "user")
	}
}

// NewUserRPC is NewUserEndpoint by gRPC. Only a user, and NOT_FOUND, are an
// answer.
func NewUserRPC(client userv1.UserServiceClient) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		id, ok := request.(int64)
		if !ok {
			return nil, fmt.Errorf("the user endpoint takes an int64; got %T", request)
		}
		found, err := client.GetUser(ctx, &userv1.GetUserRequest{Id: id})
		switch {
		case status.Code(err) == codes.NotFound:
			return false, nil
		case err != nil:
			return nil, err
		case found.GetId() != id:
			return nil, fmt.Errorf("asked for user %d, user answers with user %d", id, found.GetId())
		}
		return true, nil
	}
}
