package order

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t *testing.T, path string) *SQLite {
	t.Helper()
	store, err := OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// known are the users that exist, as the user service says when it can.
func known(_ context.Context, request any) (any, error) {
	id := request.(int64)
	return id >= 1 && id <= 3, nil
}

// away is the endpoint of a user service that nobody reaches.
func away(context.Context, any) (any, error) {
	return nil, errors.New("secret: no instance")
}

type fixture struct {
	server   *httptest.Server
	store    *SQLite
	degraded atomic.Int64
}

func newFixture(t *testing.T, users Users) *fixture {
	t.Helper()
	f := &fixture{store: openStore(t, filepath.Join(t.TempDir(), "order.db"))}
	service, err := NewService(Config{Store: f.store, Users: users, Degraded: func() { f.degraded.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	f.server = httptest.NewServer(NewHTTPHandler(NewEndpoints(service), slog.New(slog.DiscardHandler)))
	t.Cleanup(f.server.Close)
	return f
}

// call sends a request over a real connection, so that what net/http does to it
// is part of the test. It returns the answer and its whole body.
func (f *fixture) call(t *testing.T, method, path, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, f.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := f.server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(got)
}

const ofAlice = `[{"order_id":101,"item":"Laptop"},{"order_id":102,"item":"Mouse"}]` + "\n"

func TestAnswersAreExact(t *testing.T) {
	f := newFixture(t, NewUsers(known, 0))
	for _, test := range []struct {
		method, path, body string
		status             int
		want, location     string
	}{
		{"GET", "/orders/1", "", 200, ofAlice, ""},
		{"GET", "/orders/2", "", 200, `[{"order_id":103,"item":"Keyboard"}]` + "\n", ""},
		{"GET", "/orders/3", "", 200, "[]\n", ""},
		{"HEAD", "/orders/1", "", 200, "", ""},
		{"GET", "/orders/1/101", "", 200, `{"order_id":101,"item":"Laptop"}` + "\n", ""},
		{"POST", "/orders/1", `{"item":"Desk"}`, 201, `{"order_id":104,"item":"Desk"}` + "\n", "/orders/1/104"},
		{"POST", "/orders/3", `{"item":"A & B <c>"}`, 201, `{"order_id":105,"item":"A & B <c>"}` + "\n", "/orders/3/105"},
		{"GET", "/orders/1", "", 200, `[{"order_id":101,"item":"Laptop"},{"order_id":102,"item":"Mouse"},{"order_id":104,"item":"Desk"}]` + "\n", ""},
		{"GET", "/orders/3/105", "", 200, `{"order_id":105,"item":"A & B <c>"}` + "\n", ""},
	} {
		resp, got := f.call(t, test.method, test.path, test.body)
		if resp.StatusCode != test.status || got != test.want {
			t.Errorf("%s %s: %d %q; want %d %q", test.method, test.path, resp.StatusCode, got, test.status, test.want)
		}
		if got := resp.Header.Get("Location"); got != test.location {
			t.Errorf("%s %s: Location %q; want %q", test.method, test.path, got, test.location)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s: Content-Type %q; want application/json", test.method, test.path, got)
		}
		if resp.Header.Get("X-Degraded") != "" {
			t.Errorf("%s %s: degraded while user answers", test.method, test.path)
		}
	}
	if n := f.degraded.Load(); n != 0 {
		t.Errorf("%d degraded answers counted; want none", n)
	}
}

func TestBadRequestsAreProblemsThatNameWhatIsWrong(t *testing.T) {
	f := newFixture(t, NewUsers(known, 0))
	for _, test := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/orders/4", "", 404, "no such user"},
		{"GET", "/orders/4/101", "", 404, "no such user"},
		{"POST", "/orders/4", `{"item":"Desk"}`, 404, "no such user"},
		{"GET", "/orders/1/999", "", 404, "no such order"},
		{"GET", "/orders/2/101", "", 404, "no such order"}, // another's
		{"GET", "/orders/abc", "", 400, "the user in the path"},
		{"GET", "/orders/0/101", "", 400, "the user in the path"},
		{"POST", "/orders/-1", `{"item":"Desk"}`, 400, "the user in the path"},
		{"GET", "/orders/1/x", "", 400, "the order in the path"},
		{"GET", "/orders/1/9223372036854775808", "", 400, "the order in the path"},
		{"GET", "/orders", "", 404, "nothing is at"},
		{"GET", "/orders/1/101/", "", 404, "nothing is at"},
		{"PUT", "/orders/1", "", 405, "GET, HEAD, POST"},
		{"POST", "/orders/1/101", `{"item":"Desk"}`, 405, "GET, HEAD"},
		{"POST", "/orders/1", ``, 400, "item"},
		{"POST", "/orders/1", `{"item":"Desk","price":1}`, 400, `"price"`},
		{"POST", "/orders/1", `{"item":"\t"}`, 400, "the field item has the control character U+0009"},
		{"POST", "/orders/1", `{"item":" "}`, 400, "the field item is blank"},
		{"POST", "/orders/1", `{"item":"` + strings.Repeat("x", 201) + `"}`, 400, "the field item is 201 characters"},
		{"POST", "/orders/4", `{"item":""}`, 400, "the field item is empty"}, // before user is asked
		{"POST", "/orders/1", strings.Repeat(" ", 64<<10+1), 413, "65536 bytes"},
	} {
		resp, got := f.call(t, test.method, test.path, test.body)
		name := fmt.Sprintf("%s %s %.40s", test.method, test.path, test.body)
		var p problem.Problem
		if err := json.Unmarshal([]byte(got), &p); err != nil {
			t.Errorf("%s: %v: %s", name, err, got)
			continue
		}
		if resp.StatusCode != test.status || p.Status != test.status || resp.Header.Get("Content-Type") != problem.ContentType || p.Instance != test.path || !strings.Contains(p.Detail, test.says) {
			t.Errorf("%s: %d %s; want %d that says %q", name, resp.StatusCode, got, test.status, test.says)
		}
	}
	if _, got := f.call(t, "POST", "/orders/1", `{"item":"Desk"}`); got != `{"order_id":104,"item":"Desk"}`+"\n" {
		t.Errorf("the next order is %s; want 104: none of the bad ones left a trace", got)
	}
}

func TestWithoutUserOnlyReadsOfThoseWhoHaveOrdersAreAnswered(t *testing.T) {
	for name, endpoint := range map[string]func(context.Context, any) (any, error){
		"unreachable": away,
		"silent":      func(ctx context.Context, _ any) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
		"nonsense":    func(context.Context, any) (any, error) { return "yes", nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, NewUsers(endpoint, 10*time.Millisecond))
			for n, test := range []struct {
				method, path, body string
				status             int
				degraded           bool
				want               string
			}{
				{"GET", "/orders/1", "", 200, true, ofAlice},
				{"GET", "/orders/1/102", "", 200, true, `{"order_id":102,"item":"Mouse"}` + "\n"},
				{"GET", "/orders/1/999", "", 404, true, ""},
				{"GET", "/orders/2/101", "", 404, true, ""},
				{"GET", "/orders/3", "", 503, false, ""},
				{"GET", "/orders/3/101", "", 503, false, ""},
				{"GET", "/orders/4", "", 503, false, ""},
				{"POST", "/orders/1", `{"item":"Desk"}`, 503, false, ""},
				{"POST", "/orders/1", `{"item":""}`, 400, false, ""},
			} {
				before := f.degraded.Load()
				resp, got := f.call(t, test.method, test.path, test.body)
				mark, retryAfter := "", ""
				if test.degraded {
					mark = "user"
				}
				if test.status == 503 {
					retryAfter = "1"
				}
				if resp.StatusCode != test.status || resp.Header.Get("X-Degraded") != mark || resp.Header.Get("Retry-After") != retryAfter {
					t.Errorf("%d: %s %s: %d, X-Degraded %q, Retry-After %q; want %d, %q, %q", n, test.method, test.path, resp.StatusCode,
						resp.Header.Get("X-Degraded"), resp.Header.Get("Retry-After"), test.status, mark, retryAfter)
				}
				if test.want != "" && got != test.want {
					t.Errorf("%s %s: %s; want %s", test.method, test.path, got, test.want)
				}
				if strings.Contains(got, "secret") {
					t.Errorf("%s %s tells the cause: %s", test.method, test.path, got)
				}
				if counted := f.degraded.Load() - before; (counted == 1) != test.degraded {
					t.Errorf("%s %s: counted %d times", test.method, test.path, counted)
				}
			}
			if orders, err := f.store.Orders(t.Context(), 1, 0, 1000); len(orders) != 2 || err != nil {
				t.Errorf("user 1 has %v, %v; want 2 orders", orders, err)
			}
		})
	}
}

func TestPlacingAnOrderAsksOnceMoreBeforeItGivesUp(t *testing.T) {
	for fails, status := range map[int64]int{1: 201, 2: 503} {
		var asked atomic.Int64
		f := newFixture(t, NewUsers(func(ctx context.Context, request any) (any, error) {
			if asked.Add(1) <= fails {
				return away(ctx, request)
			}
			return true, nil
		}, 0))
		resp, _ := f.call(t, "POST", "/orders/1", `{"item":"Desk"}`)
		if resp.StatusCode != status || asked.Load() != 2 {
			t.Errorf("user fails %d times: got %d after asking %d times; want %d after 2", fails, resp.StatusCode, asked.Load(), status)
		}
	}
}

func TestUserIsAskedOnEachRequest(t *testing.T) {
	var asked atomic.Int64
	f := newFixture(t, NewUsers(func(_ context.Context, request any) (any, error) {
		if request != int64(1) {
			t.Errorf("asked for %v; want user 1", request)
		}
		asked.Add(1)
		return true, nil
	}, 0))
	f.call(t, "GET", "/orders/1", "")
	f.call(t, "GET", "/orders/1/101", "")
	f.call(t, "POST", "/orders/1", `{"item":"Desk"}`)
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times for 3 requests; want 3", n)
	}
}

func TestCancelledRequestIsNeitherAnsweredDegradedNorWritten(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "order.db"))
	var degraded int
	ctx, cancel := context.WithCancel(t.Context())
	service, err := NewService(Config{Store: store, Degraded: func() { degraded++ }, Users: NewUsers(func(ctx context.Context, _ any) (any, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}, time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := service.Orders(ctx, 1, 0, 1000); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUsersUnavailable) {
		t.Errorf("Orders = %v; want %v alone", err, context.Canceled)
	}
	if _, _, err := service.Order(ctx, 1, 101); !errors.Is(err, context.Canceled) {
		t.Errorf("Order = %v; want %v", err, context.Canceled)
	}
	if _, err := service.Place(ctx, 1, "Desk"); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUsersUnavailable) {
		t.Errorf("Place = %v; want %v alone", err, context.Canceled)
	}
	// The store stops as well, whatever user says.
	if _, err := store.Orders(ctx, 1, 0, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("Orders of the store = %v; want %v", err, context.Canceled)
	}
	if _, err := store.Place(ctx, 1, "Desk"); !errors.Is(err, context.Canceled) {
		t.Errorf("Place of the store = %v; want %v", err, context.Canceled)
	}
	if orders, err := store.Orders(t.Context(), 1, 0, 1000); len(orders) != 2 || err != nil || degraded != 0 {
		t.Errorf("%v, %v, %d degraded; want the 2 orders of the seed and none", orders, err, degraded)
	}
}

func TestOrdersOutliveARestartAndShowUpInTheOtherInstance(t *testing.T) {
	path := filepath.Join(t.TempDir(), "order.db")
	one, other := openStore(t, path), openStore(t, path)
	desk, err := one.Place(t.Context(), 1, "Desk")
	if err != nil || desk != (Order{ID: 104, Item: "Desk"}) {
		t.Fatalf("Place = %v, %v; want order 104", desk, err)
	}
	if got, err := other.Order(t.Context(), 1, 104); got != desk || err != nil {
		t.Errorf("Order of the other = %v, %v; want %v", got, err, desk)
	}
	if err := errors.Join(one.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	again := openStore(t, path)
	if orders, err := again.Orders(t.Context(), 1, 0, 1000); len(orders) != 3 || err != nil {
		t.Errorf("%v, %v after a restart; want 3 orders", orders, err)
	}
	if err := again.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), "DELETE FROM orders WHERE order_id = 104")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if lamp, err := again.Place(t.Context(), 2, "Lamp"); lamp.ID != 105 || err != nil {
		t.Errorf("Place after a restart = %v, %v; want order 105: 104 was taken once", lamp, err)
	}
}

func TestServiceNeedsItsParts(t *testing.T) {
	for _, cfg := range []Config{{Users: NewUsers(known, 0)}, {Store: &SQLite{}}} {
		if _, err := NewService(cfg); err == nil {
			t.Errorf("NewService(%+v) succeeded; want an error", cfg)
		}
	}
	if _, err := NewUserEndpoint(nil); err == nil {
		t.Error("NewUserEndpoint(nil) succeeded; want an error")
	}
}

// roundTrip is an http.RoundTripper.
type roundTrip func(r *http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestUserEndpointBelievesOnlyWhatSaysSo(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		body   string
		want   any // nil means an error
	}{
		{"there", 200, `{"id":7,"name":"Gus"}` + "\n", true},
		{"not there", 404, "{}", false},
		{"another user", 200, `{"id":8,"name":"Hal"}`, nil},
		{"no user", 200, `{}`, nil},
		{"no JSON", 200, `<html>`, nil},
		{"bad request", 400, `{}`, nil},
		{"gone astray", 421, `{}`, nil},
		{"in trouble", 500, `{}`, nil},
		{"busy", 503, `{}`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			body := &tracked{Reader: strings.NewReader(test.body)}
			exists, err := NewUserEndpoint(&http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodGet || r.URL.String() != "http://user/users/7" {
					t.Errorf("sends %s %s; want GET http://user/users/7", r.Method, r.URL)
				}
				return &http.Response{StatusCode: test.status, Status: http.StatusText(test.status), Body: body, Request: r}, nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			got, err := exists(t.Context(), int64(7))
			if got != test.want || (err == nil) != (test.want != nil) {
				t.Errorf("answer %v, %v; want %v", got, err, test.want)
			}
			if !body.closed || body.Reader.(*strings.Reader).Len() > 0 {
				t.Errorf("the answer was not read to its end and closed: its connection is lost")
			}
		})
	}
}

type tracked struct {
	io.Reader
	closed bool
}

func (b *tracked) Close() error { b.closed = true; return nil }

func TestUserEndpointPassesOnWhyNobodyAnswered(t *testing.T) {
	unreachable := errors.New("no instance")
	exists, err := NewUserEndpoint(&http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, unreachable })})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewUsers(exists, 0).Exists(t.Context(), 1); !errors.Is(err, unreachable) {
		t.Errorf("Exists = %v; want %v", err, unreachable)
	}
}

// Who asks us gives each try a second: it is to see our 503, and not to wait in
// vain and try the next of us.
func TestBothQuestionsAboutAUserTogetherStayBelowTheSecondOfWhoAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service, err := NewService(Config{Store: struct{ Store }{}, Users: NewUsers(func(ctx context.Context, _ any) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, 0)})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = service.Place(t.Context(), 1, "Desk")
		if took := time.Since(start); !errors.Is(err, ErrUsersUnavailable) || took != 900*time.Millisecond {
			t.Errorf("got %v after %v; want ErrUsersUnavailable after 900ms", err, took)
		}
	})
}
