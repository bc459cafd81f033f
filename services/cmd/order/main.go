// Command order serves orders: an instance of the service "order" in the mesh,
// which asks the service "user".
package main

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/go-kit/kit/endpoint"
	"google.golang.org/grpc"

	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/services/internal/app"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/overload"
	"github.com/rollcall-mesh/rollcall/services/internal/rpc"
	"github.com/rollcall-mesh/rollcall/services/order"
	"github.com/rollcall-mesh/rollcall/services/order/orderv1"
	"github.com/rollcall-mesh/rollcall/services/user/userv1"
)

var settings struct {
	Database     string       `name:"database" env:"ROLLCALL_DATABASE" default:"/data/order.db" help:"File of the SQLite database, shared by all instances; its folder must exist."`
	UserProtocol app.Choice   `name:"user-protocol" env:"ROLLCALL_USER_PROTOCOL" default:"http" oneof:"http,grpc" help:"How the service user is asked: http, grpc."`
	UserTimeout  app.Duration `name:"user-timeout" env:"ROLLCALL_USER_TIMEOUT" default:"800ms" min:"1ms" max:"1m" help:"How long the service user is waited for, all tries together. It should stay below the time that callers give us for a try."`
}

func main() {
	os.Exit(app.Main(app.Spec{
		Name:     "order",
		Describe: "Serves orders, as an instance of the service order in the mesh.",
		Peers:    []string{"user"},
		// The inner hop has less than the outer one, so that there is time
		// for a second try before the caller's is over.
		TryTimeout: 400 * time.Millisecond,
		Settings:   &settings,
		Build:      build,
	}))
}

func build(ctx context.Context, r *app.Runtime) (app.Parts, error) {
	store, err := order.OpenSQLite(ctx, settings.Database)
	if err != nil {
		return app.Parts{}, err
	}
	r.OnClose(store.Close)
	r.Health.Add("store", health.Required, store.Ping)

	exists, err := askUser(r)
	if err != nil {
		return app.Parts{}, err
	}
	service, err := order.NewService(order.Config{
		Store:    store,
		Users:    order.NewUsers(exists, time.Duration(settings.UserTimeout)),
		Degraded: r.Metrics.Degraded(),
	})
	if err != nil {
		return app.Parts{}, err
	}
	endpoints, replayed := order.NewEndpoints(service), r.Metrics.Replays()
	return app.Parts{
		Handler: idempotency.Count(order.NewHTTPHandler(endpoints, r.Log), replayed),
		GRPC: func(server grpc.ServiceRegistrar) {
			orderv1.RegisterOrderServiceServer(server, order.NewGRPCServer(endpoints, replayed))
		},
	}, nil
}

// askUser returns the endpoint that asks the service user, by the protocol that is
// set.
func askUser(r *app.Runtime) (endpoint.Endpoint, error) {
	if settings.UserProtocol == "grpc" {
		conn, err := grpcmesh.NewClient(r.Mesh, "user", grpcmesh.ClientConfig{Credentials: r.Credentials("user")}, grpc.WithChainUnaryInterceptor(rpc.Outgoing))
		if err != nil {
			return nil, err
		}
		r.OnClose(conn.Close)
		return order.NewUserRPC(userv1.NewUserServiceClient(conn)), nil
	}
	client := &http.Client{Transport: logging.PassRequestID(overload.Outside(r.Transport))}
	return order.NewUserEndpoint(client)
}
