// Command user serves users: an instance of the service "user" in the mesh.
package main

import (
	"context"
	"os"

	"google.golang.org/grpc"

	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/services/internal/app"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/user"
	"github.com/rollcall-mesh/rollcall/services/user/userv1"
)

var settings struct {
	Database string `name:"database" env:"ROLLCALL_DATABASE" default:"/data/user.db" help:"File of the SQLite database, shared by all instances; its folder must exist."`
}

func main() {
	os.Exit(app.Main(app.Spec{
		Name:     "user",
		Describe: "Serves users, as an instance of the service user in the mesh.",
		Settings: &settings,
		Build:    build,
	}))
}

func build(ctx context.Context, r *app.Runtime) (app.Parts, error) {
	store, err := user.OpenSQLite(ctx, settings.Database)
	if err != nil {
		return app.Parts{}, err
	}
	r.OnClose(store.Close)
	r.Health.Add("store", health.Required, store.Ping)
	endpoints, replayed := user.NewEndpoints(user.NewService(store)), r.Metrics.Replays()
	return app.Parts{
		Handler: idempotency.Count(user.NewHTTPHandler(endpoints, r.Log), replayed),
		GRPC: func(server grpc.ServiceRegistrar) {
			userv1.RegisterUserServiceServer(server, user.NewGRPCServer(endpoints, replayed))
		},
	}, nil
}
