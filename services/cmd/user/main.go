// Command user serves users: an instance of the service "user" in the mesh.
package main

import (
	"context"
	"os"

	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/services/internal/app"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/user"
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
	handler := user.NewHTTPHandler(user.NewEndpoints(user.NewService(store)), r.Log)
	return app.Parts{Handler: idempotency.Count(handler, r.Metrics.Replays())}, nil
}
