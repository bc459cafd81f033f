package user

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/services/internal/rpctest"
	"github.com/rollcall-mesh/rollcall/services/internal/sqlite"
	"github.com/rollcall-mesh/rollcall/services/user/userv1"
)

// newClient returns a client of a service over a fresh store, and what counts its
// replays.
func newClient(t *testing.T) (userv1.UserServiceClient, *int) {
	t.Helper()
	store := openStore(t, filepath.Join(t.TempDir(), "user.db"))
	replays := new(int)
	conn := rpctest.Serve(t, "user", func(s grpc.ServiceRegistrar) {
		userv1.RegisterUserServiceServer(s, NewGRPCServer(NewEndpoints(NewService(store)), func() { *replays++ }))
	})
	return userv1.NewUserServiceClient(conn), replays
}

func TestGRPCAnswersAsHTTPDoes(t *testing.T) {
	client, _ := newClient(t)
	if u, err := client.GetUser(t.Context(), &userv1.GetUserRequest{Id: 2}); err != nil || u.GetId() != 2 || u.GetName() != "Bob" {
		t.Errorf("GetUser(2) = %v, %v; want Bob", u, err)
	}
	var names []string
	after := int64(0)
	for range 2 {
		page, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{After: after, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page.GetUsers() {
			names = append(names, u.GetName())
		}
		after = page.GetNextAfter()
		names = append(names, "|")
	}
	if got := strings.Join(names, " "); got != "Alice Bob | Carol |" || after != 0 {
		t.Errorf("the pages are %s and then %d; want Alice Bob | Carol | and no more", got, after)
	}
	if u, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Name: "Dave"}); err != nil || u.GetId() != 4 || u.GetName() != "Dave" {
		t.Errorf("CreateUser(Dave) = %v, %v; want user 4", u, err)
	}
	for _, test := range []struct {
		call func() error
		code codes.Code
		says string
	}{
		{func() error {
			_, err := client.GetUser(t.Context(), &userv1.GetUserRequest{Id: 9})
			return err
		}, codes.NotFound, "there is no user 9"},
		{func() error { _, err := client.GetUser(t.Context(), &userv1.GetUserRequest{}); return err }, codes.InvalidArgument, "field id is 0"},
		{func() error {
			_, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{Limit: 101})
			return err
		}, codes.InvalidArgument, "field limit is 101"},
		{func() error {
			_, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{After: -1})
			return err
		}, codes.InvalidArgument, "field after is -1"},
		{func() error {
			_, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{})
			return err
		}, codes.InvalidArgument, "field name"},
	} {
		if err := test.call(); status.Code(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("got %v; want %v, %q", err, test.code, test.says)
		}
	}
}

func TestRepeatedKeyByGRPCCreatesOneUser(t *testing.T) {
	client, replays := newClient(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "k")
	for n, replayed := range []string{"", "true"} {
		var header metadata.MD
		u, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Name: "Dave"}, grpc.Header(&header))
		if err != nil || u.GetId() != 4 || u.GetName() != "Dave" || strings.Join(header.Get("idempotency-replayed"), ",") != replayed {
			t.Errorf("time %d: %v %v %v; want user 4, replayed %q", n+1, u, err, header, replayed)
		}
	}
	if *replays != 1 {
		t.Errorf("%d replays were counted; want 1", *replays)
	}
	if u, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Name: "Eve"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the key with another name: %v, %v; want INVALID_ARGUMENT", u, err)
	}
	two := metadata.AppendToOutgoingContext(ctx, "idempotency-key", "l")
	if _, err := client.CreateUser(two, &userv1.CreateUserRequest{Name: "Eve"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("two keys: %v; want INVALID_ARGUMENT", err)
	}
}

// broken is a service that fails.
type broken struct {
	Service
	err error
}

func (b broken) User(context.Context, int64) (User, error) { return User{}, b.err }

func TestErrorsOfOursDoNotTellTheirCauseByGRPC(t *testing.T) {
	for _, test := range []struct {
		err  error
		code codes.Code
	}{
		{errors.New("secret"), codes.Internal},
		{sqlite.ErrBusy, codes.Unavailable},
		{sqlite.ErrFull, codes.ResourceExhausted},
	} {
		conn := rpctest.Serve(t, "user", func(s grpc.ServiceRegistrar) {
			userv1.RegisterUserServiceServer(s, NewGRPCServer(NewEndpoints(broken{err: test.err}), nil))
		})
		_, err := userv1.NewUserServiceClient(conn).GetUser(t.Context(), &userv1.GetUserRequest{Id: 1})
		if status.Code(err) != test.code || strings.Contains(err.Error(), "secret") || len(status.Convert(err).Details()) > 0 {
			t.Errorf("%v is told as %v; want %v, and no details", test.err, err, test.code)
		}
	}
}
