package main

import (
	"net/http"

	"github.com/rollcall-mesh/rollcall/observability/meshview"
	"github.com/rollcall-mesh/rollcall/services/gateway/routing"
	"github.com/rollcall-mesh/rollcall/services/internal/app"
)

// viewers is how many live pages there may be: the admin port takes 64 connections, and
// probes and Prometheus need some.
const viewers = 32

// look adds the page that shows the mesh, to which / leads. learned is nil where no
// routes are learned.
func look(r *app.Runtime, learned func() *routing.Table, pages map[string]http.Handler) error {
	if learned == nil {
		learned = func() *routing.Table { return nil }
	}
	fixed := routing.NewTable(pinned...)
	cfg := meshview.Config{
		Mesh:    r.Mesh,
		Log:     r.Log,
		Viewers: viewers,
		Route: func(host, path string) (meshview.Route, bool) {
			route, ok := fixed.Find(host, path)
			if !ok {
				route, ok = learned().Find(host, path)
			}
			if !ok {
				return meshview.Route{}, false
			}
			return meshview.Route{Service: route.Service, Path: route.Inner(path), Rule: route.Key()}, true
		},
		Routes:     func() []string { return append(lines(fixed), lines(learned())...) },
		ConsulUI:   string(settings.ConsulUI),
		Prometheus: string(settings.PrometheusUI),
	}
	if settings.MeshTry == "on" {
		cfg.Try = r.Transport
	}
	view, err := meshview.New(cfg)
	if err != nil {
		return err
	}
	r.OnClose(view.Close)
	pages["/mesh/"] = view
	pages["GET /{$}"] = http.RedirectHandler("/mesh/", http.StatusFound)
	return nil
}

// lines are the routes of a table as the page tells of them.
func lines(t *routing.Table) []string {
	if t == nil {
		return nil
	}
	all := make([]string, 0, len(t.Routes))
	for _, route := range t.Routes {
		all = append(all, route.Key()+" to "+route.Service)
	}
	return all
}
