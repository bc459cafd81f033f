package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/docs/examples/openapi/orderapi"
	"github.com/rollcall-mesh/rollcall/docs/examples/openapi/userapi"
	"github.com/rollcall-mesh/rollcall/services/order"
	"github.com/rollcall-mesh/rollcall/services/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestGeneratedClientsFindTheServicesByTheMesh(t *testing.T) {
	for _, consul := range []struct {
		name  string
		start func(t *testing.T) (address string)
	}{
		{"a Consul in the test", func(t *testing.T) string {
			address, err := consultest.New(t).Listen()
			if err != nil {
				t.Fatal(err)
			}
			return address
		}},
		{"a real Consul", func(t *testing.T) string { return consultest.Real(t).Addr() }},
	} {
		t.Run(consul.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			mesh, err := discovery.Open(ctx, discovery.Config{Consul: discovery.Consul{Address: consul.start(t)}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { mesh.Close() })
			for name, handler := range map[string]http.Handler{"user": users(t), "order": orders(t, mesh.Client())} {
				offer(t, mesh, name, handler)
			}

			var out strings.Builder
			if err := tell(ctx, &out, mesh, 1); err != nil {
				t.Fatal(err)
			}
			if got, want := out.String(), "Alice\n101 Laptop\n102 Mouse\n"; got != want {
				t.Errorf("told %q; want %q", got, want)
			}
			out.Reset()
			if err := tell(ctx, &out, mesh, 9); err == nil || !strings.Contains(err.Error(), "404 Not Found") {
				t.Errorf("told %q and %v of a user that is not there; want an error with 404", out.String(), err)
			}
		})
	}
}

// A request that a document refuses is refused by its service, and one that it
// allows is not; each answer is as the document has it.
func TestDocumentsSayWhatTheServicesDo(t *testing.T) {
	long := strings.Repeat("x", 200)
	away := func(context.Context, any) (any, error) { return nil, errors.New("away") }
	for _, service := range []struct {
		name     string
		handler  http.Handler
		requests []string // METHOD PATH [BODY], or the same with a key
	}{
		{"user", users(t), []string{
			"GET /users", "GET /users?limit=1", "GET /users?limit=100&after=2", "GET /users?limit=101", "GET /users?limit=0", "GET /users?after=0", "GET /users?after=x",
			"GET /users/1", "GET /users/99", "GET /users/0", "GET /users/x",
			`POST /users {"name":"Dave"}`, `KEYED /users {"name":"Eve"}`, `POST /users {"name":"` + long + `"}`, `POST /users {"name":"` + long + `x"}`,
			`POST /users {"name":""}`, `POST /users {"name":1}`, `POST /users {}`, `POST /users {"name":"Dave","age":1}`,
		}},
		{"order", orders(t, nil), []string{
			"GET /orders/1", "GET /orders/1?limit=1", "GET /orders/1?limit=101", "GET /orders/1?after=101", "GET /orders/99", "GET /orders/0", "GET /orders/x",
			"GET /orders/1/101", "GET /orders/1/999", "GET /orders/1/0",
			`POST /orders/1 {"item":"Desk"}`, `KEYED /orders/1 {"item":"Lamp"}`, `POST /orders/1 {"item":"` + long + `"}`, `POST /orders/1 {"item":"` + long + `x"}`,
			`POST /orders/99 {"item":"Desk"}`, `POST /orders/1 {"item":""}`, `POST /orders/1 {}`, `POST /orders/1 {"item":"Desk","price":1}`,
		}},
		{"order", ordersOf(t, order.NewUsers(away, 0)), []string{
			"GET /orders/1", "GET /orders/1/101", `POST /orders/1 {"item":"Desk"}`,
		}},
	} {
		t.Run(service.name, func(t *testing.T) {
			d := load(t, service.name, service.handler)
			for _, request := range service.requests {
				d.compare(t, request)
			}
		})
	}
}

func TestDocumentsHaveEachMethodOfTheirPathsAndNoOther(t *testing.T) {
	for name, handler := range map[string]http.Handler{"user": users(t), "order": orders(t, nil)} {
		d := load(t, name, handler)
		for path, item := range d.document.Paths.Map() {
			target := strings.NewReplacer("{id}", "1", "{user}", "1", "{order}", "101").Replace(path)
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest(method, target, nil))
				if declared, served := item.GetOperation(method) != nil, w.Code != http.StatusMethodNotAllowed; declared != served {
					t.Errorf("%s %s: in the document %v, answered %d", method, target, declared, w.Code)
				}
			}
		}
	}
}

// An operation that is new in a document makes its client stale: run go generate.
func TestClientsHaveEachOperationOfTheirDocuments(t *testing.T) {
	for name, client := range map[string]any{"user": new(userapi.ClientWithResponses), "order": new(orderapi.ClientWithResponses)} {
		for path, item := range load(t, name, nil).document.Paths.Map() {
			for method, operation := range item.Operations() {
				id := operation.OperationID
				want := strings.ToUpper(id[:1]) + id[1:] + "WithResponse"
				if _, found := reflect.TypeOf(client).MethodByName(want); !found {
					t.Errorf("the client of %s has no %s, for %s %s", name, want, method, path)
				}
			}
		}
	}
}

// described is a service and what its document says of it.
type described struct {
	document *openapi3.T
	router   routers.Router
	handler  http.Handler
}

func load(t *testing.T, name string, handler http.Handler) *described {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile(filepath.Join(name+"api", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	router, err := legacy.NewRouter(document)
	if err != nil {
		t.Fatal(err)
	}
	return &described{document, router, handler}
}

// compare puts a request to both.
func (d *described) compare(t *testing.T, line string) {
	t.Helper()
	method, rest, _ := strings.Cut(line, " ")
	target, body, _ := strings.Cut(rest, " ")
	ask := func() *http.Request {
		r := httptest.NewRequest(method, d.document.Servers[0].URL+target, strings.NewReader(body))
		if method == "KEYED" {
			r.Method = http.MethodPost
			r.Header.Set("Idempotency-Key", "a-key")
		}
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		return r
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, ask())

	route, params, err := d.router.FindRoute(ask())
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	input := &openapi3filter.RequestValidationInput{Request: ask(), Route: route, PathParams: params}
	if err := openapi3filter.ValidateRequest(t.Context(), input); (err != nil) != (w.Code == http.StatusBadRequest) {
		t.Errorf("%.80s: the service answers %d; the document says %v", line, w.Code, err)
	}
	err = openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: w.Code, Header: w.Header(), Body: io.NopCloser(bytes.NewReader(w.Body.Bytes())),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		t.Errorf("%.80s: %d %s: %v", line, w.Code, w.Body, err)
	}
	if response := route.Operation.Responses.Status(w.Code); response != nil {
		for _, name := range []string{"Link", "Location", "X-Degraded"} {
			if w.Header().Get(name) != "" && !slices.Contains(slices.Collect(maps.Keys(response.Value.Headers)), name) {
				t.Errorf("%.80s: the answer has the header %s, of which the document says nothing", line, name)
			}
		}
	}
}

// offer serves a service until the test ends, and registers it.
func offer(t *testing.T, mesh *discovery.Mesh, name string, handler http.Handler) {
	t.Helper()
	server := httptest.NewServer(httpmesh.RequireService(name, handler))
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(address.Port())
	if err != nil {
		t.Fatal(err)
	}
	registered, err := mesh.Register(registration.Config{Service: name, Host: "127.0.0.1", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := registered.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

func users(t *testing.T) http.Handler {
	t.Helper()
	store, err := user.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "user.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return user.NewHTTPHandler(user.NewEndpoints(user.NewService(store)), slog.New(slog.DiscardHandler))
}

// orders asks for users by the client; nil means that 1, 2 and 3 are there.
func orders(t *testing.T, client *http.Client) http.Handler {
	t.Helper()
	exists := func(_ context.Context, id any) (any, error) { return id.(int64) <= 3, nil }
	if client != nil {
		var err error
		if exists, err = order.NewUserEndpoint(client); err != nil {
			t.Fatal(err)
		}
	}
	return ordersOf(t, order.NewUsers(exists, 0))
}

func ordersOf(t *testing.T, users order.Users) http.Handler {
	t.Helper()
	store, err := order.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "order.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	service, err := order.NewService(order.Config{Store: store, Users: users})
	if err != nil {
		t.Fatal(err)
	}
	return order.NewHTTPHandler(order.NewEndpoints(service), slog.New(slog.DiscardHandler))
}
