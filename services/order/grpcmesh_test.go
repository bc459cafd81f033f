package order

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/services/internal/rpc"
	"github.com/rollcall-mesh/rollcall/services/user/userv1"
)

// oneUser is a user service with one user.
type oneUser struct {
	userv1.UnimplementedUserServiceServer
}

func (oneUser) GetUser(_ context.Context, r *userv1.GetUserRequest) (*userv1.User, error) {
	if r.GetId() != 1 {
		return nil, status.Error(codes.NotFound, "there is no such user")
	}
	return &userv1.User{Id: 1, Name: "Alice"}, nil
}

// userAt is an instance of user by gRPC, whose server says that it is of the
// service.
func userAt(t *testing.T, id, service string) catalog.Instance {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := grpcmesh.NewServer(grpcmesh.ServerConfig{Service: service, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if service == "user" {
		userv1.RegisterUserServiceServer(server, oneUser{})
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	i := instanceAt(l.Addr())
	i.ID, i.Tags = id, []string{catalog.GRPC}
	return i
}

func TestUserIsAskedByGRPCThroughTheMeshAndItsAbsenceDegradesReads(t *testing.T) {
	var source catalog.Fixed
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: &source, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	conn, err := grpcmesh.NewClient(mesh, "user", grpcmesh.ClientConfig{}, grpc.WithChainUnaryInterceptor(rpc.Outgoing))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f := newFixture(t, NewUsers(NewUserRPC(userv1.NewUserServiceClient(conn)), 0))
	check := func(when, method, path string, code int, degraded string) {
		t.Helper()
		resp, got := f.call(t, method, path, `{"item":"Desk"}`)
		if resp.StatusCode != code || resp.Header.Get(DegradedHeader) != degraded {
			t.Errorf("%s: %s %s: %d, degraded %q: %s; want %d, %q", when, method, path, resp.StatusCode, resp.Header.Get(DegradedHeader), got, code, degraded)
		}
	}

	check("no instance", "GET", "/orders/1", 200, "user")
	check("no instance", "POST", "/orders/1", 503, "")

	if err := source.Set("user", userAt(t, "user-1", "user"), userAt(t, "user-2", "order")); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		check("one instance, and an address that is another service's now", "GET", "/orders/1", 200, "")
		check("one instance, and an address that is another service's now", "POST", "/orders/1", 201, "")
	}
	check("one instance", "GET", "/orders/3", 404, "")
}
