// Package debug has a page that shows what a mesh knows.
//
//	mux.Handle("GET /debug/discovery", debug.Discovery(mesh))
//
// It tells addresses and states of other services: serve it where operators are,
// and nobody else.
package debug

import (
	"encoding/json"
	"net/http"

	"github.com/rollcall-mesh/rollcall/discovery"
)

// MetaAdmin is the Meta key by which an entry in Consul says on which port, at its own
// host and by plain HTTP, its process serves /debug/discovery: there pages and commands
// that show the whole mesh ask it.
const MetaAdmin = "rollcall_admin"

// Mesh tells what it knows. A *discovery.Mesh is one.
type Mesh interface {
	Status() discovery.Status
}

// Discovery serves the mesh's discovery.Status as JSON: the services that it
// follows with their instances, and the process's own entries. Asking for it
// changes nothing in the mesh: it keeps no watch alive and begins none.
func Discovery(mesh Mesh) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		_ = out.Encode(mesh.Status()) // a reader that has gone needs no answer
	})
}
