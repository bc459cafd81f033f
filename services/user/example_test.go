package user_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/rollcall-mesh/rollcall/services/user"
)

func Example() {
	dir, err := os.MkdirTemp("", "user")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := user.OpenSQLite(context.Background(), filepath.Join(dir, "user.db"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	handler := user.NewHTTPHandler(user.NewEndpoints(user.NewService(store)), slog.Default())
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/users/1", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output: 200 {"id":1,"name":"Alice"}
}
