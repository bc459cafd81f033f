package order

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/services/internal/rpctest"
	"github.com/rollcall-mesh/rollcall/services/order/orderv1"
	"github.com/rollcall-mesh/rollcall/services/user/userv1"
)

// newClient is a client of the service over a fresh store.
func newClient(t *testing.T, users Users) orderv1.OrderServiceClient {
	t.Helper()
	service, err := NewService(Config{Store: openStore(t, t.TempDir()+"/order.db"), Users: users})
	if err != nil {
		t.Fatal(err)
	}
	conn := rpctest.Serve(t, "order", func(s grpc.ServiceRegistrar) {
		orderv1.RegisterOrderServiceServer(s, NewGRPCServer(NewEndpoints(service), func() {}))
	})
	return orderv1.NewOrderServiceClient(conn)
}

func TestGRPCAnswersAsHTTPDoes(t *testing.T) {
	client := newClient(t, NewUsers(known, 0))
	placed, err := client.PlaceOrder(t.Context(), &orderv1.PlaceOrderRequest{UserId: 1, Item: "a lamp"})
	if err != nil || placed.GetItem() != "a lamp" || placed.GetOrderId() == 0 {
		t.Fatalf("PlaceOrder() = %v, %v; want a lamp", placed, err)
	}
	if got, err := client.GetOrder(t.Context(), &orderv1.GetOrderRequest{UserId: 1, OrderId: placed.GetOrderId()}); err != nil || got.GetItem() != "a lamp" {
		t.Errorf("GetOrder() = %v, %v; want the lamp", got, err)
	}
	page, err := client.ListOrders(t.Context(), &orderv1.ListOrdersRequest{UserId: 1, Limit: 1})
	if err != nil || len(page.GetOrders()) != 1 || page.GetNextAfter() != page.GetOrders()[0].GetOrderId() {
		t.Errorf("ListOrders() = %v, %v; want one order, and more after it", page, err)
	}
	for _, test := range []struct {
		request *orderv1.GetOrderRequest
		code    codes.Code
		says    string
	}{
		{&orderv1.GetOrderRequest{UserId: 404, OrderId: 1}, codes.NotFound, "there is no such user"},
		{&orderv1.GetOrderRequest{UserId: 1, OrderId: 1 << 40}, codes.NotFound, "no such order"},
		{&orderv1.GetOrderRequest{OrderId: 1}, codes.InvalidArgument, "user_id is 0"},
		{&orderv1.GetOrderRequest{UserId: 1, OrderId: -1}, codes.InvalidArgument, "order_id is -1"},
	} {
		if _, err := client.GetOrder(t.Context(), test.request); status.Code(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("GetOrder(%v): %v; want %v, %q", test.request, err, test.code, test.says)
		}
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "k")
	var ids []int64
	for _, user := range []int64{1, 1, 2} {
		o, err := client.PlaceOrder(ctx, &orderv1.PlaceOrderRequest{UserId: user, Item: "a chair"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, o.GetOrderId())
	}
	if ids[0] != ids[1] || ids[1] == ids[2] {
		t.Errorf("one key of two users placed %v; want one order for each", ids)
	}
}

func TestWithoutUserGRPCAnswersAreMarkedAndFailuresBlamedOnUser(t *testing.T) {
	client := newClient(t, NewUsers(away, 0))
	var header, trailer metadata.MD
	if page, err := client.ListOrders(t.Context(), &orderv1.ListOrdersRequest{UserId: 1}, grpc.Header(&header)); err != nil || len(page.GetOrders()) == 0 || strings.Join(header.Get("x-degraded"), "") != "user" {
		t.Errorf("ListOrders() = %v, %v, %v; want orders, marked as degraded", page, err, header)
	}
	_, err := client.GetOrder(t.Context(), &orderv1.GetOrderRequest{UserId: 1, OrderId: 1 << 40}, grpc.Trailer(&trailer))
	if status.Code(err) != codes.NotFound || strings.Join(trailer.Get("x-degraded"), "") != "user" {
		t.Errorf("an order that is not there: %v, %v; want NOT_FOUND, marked as degraded", err, trailer)
	}
	_, err = client.PlaceOrder(t.Context(), &orderv1.PlaceOrderRequest{UserId: 1, Item: "a lamp"})
	reason := ""
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason = info.GetReason()
		}
	}
	if status.Code(err) != codes.Unavailable || reason != "DOWNSTREAM" {
		t.Errorf("PlaceOrder(): %v (%s); want UNAVAILABLE, DOWNSTREAM", err, reason)
	}
}

// Whatever user answers is not our own answer to who asked us.
func TestUserByGRPCIsBelievedOnlyWhatSaysSo(t *testing.T) {
	var answer *userv1.User
	var says error
	conn := rpctest.Serve(t, "user", func(s grpc.ServiceRegistrar) {
		userv1.RegisterUserServiceServer(s, scripted{answer: &answer, says: &says})
	})
	ask := NewUserRPC(userv1.NewUserServiceClient(conn))
	for _, test := range []struct {
		answer *userv1.User
		says   error
		want   string
	}{
		{&userv1.User{Id: 7, Name: "Ann"}, nil, "true <nil>"},
		{nil, status.Error(codes.NotFound, "there is no user 7"), "false <nil>"},
		{&userv1.User{Id: 8}, nil, "<nil> asked for user 7, user answers with user 8"},
		{nil, status.Error(codes.Unavailable, "away"), "<nil> rpc error: code = Unavailable desc = away"},
	} {
		answer, says = test.answer, test.says
		got, err := ask(t.Context(), int64(7))
		if told := fmt.Sprint(got, " ", err); told != test.want {
			t.Errorf("got %s; want %s", told, test.want)
		}
	}
	if _, err := ask(t.Context(), "7"); err == nil {
		t.Error("a string is taken; want an error")
	}
	says = status.Error(codes.PermissionDenied, "secret")
	_, err := newClient(t, NewUsers(ask, 0)).PlaceOrder(t.Context(), &orderv1.PlaceOrderRequest{UserId: 7, Item: "a lamp"})
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "secret") {
		t.Errorf("what user said comes out as %v; want UNAVAILABLE in our own words", err)
	}
}

type scripted struct {
	userv1.UnimplementedUserServiceServer
	answer **userv1.User
	says   *error
}

func (s scripted) GetUser(context.Context, *userv1.GetUserRequest) (*userv1.User, error) {
	return *s.answer, *s.says
}
