package meshview_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/observability/meshview"
)

func ExampleNew() {
	mesh, err := discovery.Open(context.Background(), discovery.Config{})
	if err != nil {
		panic(err)
	}
	defer mesh.Close()

	view, err := meshview.New(meshview.Config{Mesh: mesh, Log: slog.Default()})
	if err != nil {
		panic(err)
	}
	defer view.Close()
	mux := http.NewServeMux()
	mux.Handle("/mesh/", view) // on a port for operators, beside /metrics

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/mesh", nil))
	fmt.Println(w.Header().Get("Location"))
	// Output: /mesh/
}
