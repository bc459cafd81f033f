package order_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/rollcall-mesh/rollcall/services/order"
)

func Example() {
	dir, err := os.MkdirTemp("", "order")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := order.OpenSQLite(context.Background(), filepath.Join(dir, "order.db"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	// In a program this is order.NewUserEndpoint(mesh.Client()).
	everybody := func(context.Context, any) (any, error) { return true, nil }
	service, err := order.NewService(order.Config{Store: store, Users: order.NewUsers(everybody, 0)})
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := order.NewHTTPHandler(order.NewEndpoints(service), slog.Default())
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders/1", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output: 200 [{"order_id":101,"item":"Laptop"},{"order_id":102,"item":"Mouse"}]
}
