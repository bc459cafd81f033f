package user

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

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

func newHandler(t *testing.T) http.Handler {
	t.Helper()
	store := openStore(t, filepath.Join(t.TempDir(), "user.db"))
	return NewHTTPHandler(NewEndpoints(NewService(store)), slog.New(slog.DiscardHandler))
}

// call sends a request over a real connection, so that what net/http does to it
// is part of the test. It returns the answer and its whole body.
func call(t *testing.T, server *httptest.Server, method, path, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	resp, err := server.Client().Do(r)
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

var asJSON = http.Header{"Content-Type": {"application/json"}}

func TestAnswersAreExact(t *testing.T) {
	server := httptest.NewServer(newHandler(t))
	defer server.Close()
	for _, test := range []struct {
		method, path, body string
		status             int
		want, location     string
	}{
		{"GET", "/users/1", "", 200, `{"id":1,"name":"Alice"}` + "\n", ""},
		{"GET", "/users/2", "", 200, `{"id":2,"name":"Bob"}` + "\n", ""},
		{"GET", "/users/3", "", 200, `{"id":3,"name":"Carol"}` + "\n", ""},
		{"HEAD", "/users/3", "", 200, "", ""},
		{"POST", "/users", `{"name":"Dave"}`, 201, `{"id":4,"name":"Dave"}` + "\n", "/users/4"},
		{"POST", "/users", `{"name":"<Eve> & \u00e9"}`, 201, `{"id":5,"name":"<Eve> & é"}` + "\n", "/users/5"},
		{"GET", "/users/4", "", 200, `{"id":4,"name":"Dave"}` + "\n", ""},
		{"GET", "/users/5?x=y", "", 200, `{"id":5,"name":"<Eve> & é"}` + "\n", ""},
	} {
		resp, got := call(t, server, test.method, test.path, test.body, asJSON)
		if resp.StatusCode != test.status || got != test.want {
			t.Errorf("%s %s: %d %q; want %d %q", test.method, test.path, resp.StatusCode, got, test.status, test.want)
		}
		if got := resp.Header.Get("Location"); got != test.location {
			t.Errorf("%s %s: Location %q; want %q", test.method, test.path, got, test.location)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s: Content-Type %q; want application/json", test.method, test.path, got)
		}
	}
}

func TestBadRequestsAreProblemsThatNameWhatIsWrong(t *testing.T) {
	server := httptest.NewServer(newHandler(t))
	defer server.Close()
	for _, test := range []struct {
		method, path, body string
		header             http.Header
		status             int
		says               string
	}{
		{"GET", "/users/4", "", nil, 404, "no user 4"},
		{"HEAD", "/users/4", "", nil, 404, ""},
		{"GET", "/users/9223372036854775807", "", nil, 404, "no user 9223372036854775807"},
		{"GET", "/users/9223372036854775808", "", nil, 400, "the id in the path"},
		{"GET", "/users/0", "", nil, 400, "the id in the path"},
		{"GET", "/users/abc", "", nil, 400, "the id in the path"},
		{"GET", "/users/1%2F2", "", nil, 400, "the id in the path"},
		{"GET", "/", "", nil, 404, "nothing is at /"},
		{"GET", "/users/1/orders", "", nil, 404, "nothing is at"},
		{"PUT", "/users", "", nil, 405, "GET, HEAD, POST"},
		{"GET", "/users?limit=0", "", nil, 400, `the parameter limit is "0"`},
		{"GET", "/users?after=abc", "", nil, 400, `the parameter after is "abc"`},
		{"DELETE", "/users/1", "", nil, 405, "GET, HEAD"},
		{"POST", "/users/1", `{"name":"x"}`, asJSON, 405, "GET, HEAD"},
		{"POST", "/users", `{"name":"x"}`, nil, 415, "application/json"},
		{"POST", "/users", `name=x`, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 415, "application/json"},
		{"POST", "/users", `{"name":"` + strings.Repeat("x", 64<<10) + `"}`, asJSON, 413, "65536 bytes"},
		{"POST", "/users", ``, asJSON, 400, "name"},
		{"POST", "/users", `name`, asJSON, 400, "not JSON"},
		{"POST", "/users", `{"name":"x","id":7}`, asJSON, 400, `"id"`},
		{"POST", "/users", `{"name":"x"}{"name":"y"}`, asJSON, 400, "follows"},
		{"POST", "/users", `{}`, asJSON, 400, "the field name is missing"},
		{"POST", "/users", `{"name":null}`, asJSON, 400, "the field name is null"},
		{"POST", "/users", `{"name":7}`, asJSON, 400, "the field name is of type number"},
		{"POST", "/users", `{"name":""}`, asJSON, 400, "the field name is empty"},
		{"POST", "/users", `{"name":" "}`, asJSON, 400, "the field name is blank"},
		{"POST", "/users", `{"name":"a\u0000b"}`, asJSON, 400, "the field name has the control character U+0000"},
		{"POST", "/users", `{"name":"\ud800"}`, asJSON, 400, "the field name has the replacement character"},
		{"POST", "/users", `{"name":"` + strings.Repeat("é", 201) + `"}`, asJSON, 400, "the field name is 201 characters"},
	} {
		resp, got := call(t, server, test.method, test.path, test.body, test.header)
		name := fmt.Sprintf("%s %s %.40s", test.method, test.path, test.body)
		if resp.StatusCode != test.status || resp.Header.Get("Content-Type") != problem.ContentType {
			t.Errorf("%s: %d %s; want a problem of %d", name, resp.StatusCode, resp.Header.Get("Content-Type"), test.status)
		}
		if test.status == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s: no Allow", name)
		}
		if test.method == "HEAD" {
			continue
		}
		var p problem.Problem
		if err := json.Unmarshal([]byte(got), &p); err != nil {
			t.Errorf("%s: %v: %s", name, err, got)
			continue
		}
		if p.Type != "about:blank" || p.Title != http.StatusText(test.status) || p.Status != test.status || p.Instance != strings.Split(test.path, "?")[0] || !strings.Contains(p.Detail, test.says) {
			t.Errorf("%s: %s; want one that says %q", name, got, test.says)
		}
	}
	// None of them left a trace.
	if _, got := call(t, server, "POST", "/users", `{"name":"Dave"}`, asJSON); got != `{"id":4,"name":"Dave"}`+"\n" {
		t.Errorf("the next user is %s; want 4", got)
	}
}

func TestLongestNamesAreKeptWhole(t *testing.T) {
	server := httptest.NewServer(newHandler(t))
	defer server.Close()
	for n, char := range []string{"x", "é", "𝄞"} {
		name := strings.Repeat(char, 200)
		resp, got := call(t, server, "POST", "/users", `{"name":"`+name+`"}`, asJSON)
		if want := fmt.Sprintf(`{"id":%d,"name":"%s"}`+"\n", 4+n, name); resp.StatusCode != http.StatusCreated || got != want {
			t.Errorf("%d %s; want 201 %s", resp.StatusCode, got, want)
		}
	}
}

func TestUsersOutliveARestartAndIDsAreNeverGivenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "user.db")
	first := openStore(t, path)
	dave, err := first.Create(t.Context(), "Dave")
	if err != nil || dave != (User{ID: 4, Name: "Dave"}) {
		t.Fatalf("Create = %v, %v; want user 4", dave, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := openStore(t, path)
	if got, err := second.User(t.Context(), 4); got != dave || err != nil {
		t.Errorf("User(4) after a restart = %v, %v; want %v", got, err, dave)
	}
	if _, err := second.User(t.Context(), 5); !errors.Is(err, ErrNotFound) {
		t.Errorf("User(5) = %v; want ErrNotFound", err)
	}
	if err := second.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), "DELETE FROM users WHERE id = 4")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if eve, err := second.Create(t.Context(), "Eve"); eve.ID != 5 || err != nil {
		t.Errorf("Create after a restart = %v, %v; want user 5", eve, err)
	}
}

func TestInstancesOnOneFileSeeEachOthersUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "user.db")
	one, other := openStore(t, path), openStore(t, path)
	dave, err := one.Create(t.Context(), "Dave")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.User(t.Context(), dave.ID); got != dave || err != nil {
		t.Errorf("User(%d) of the other = %v, %v; want %v", dave.ID, got, err, dave)
	}
}

func TestCancelledContextStopsReadsAndWrites(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "user.db"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.User(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("User = %v; want %v", err, context.Canceled)
	}
	if _, err := store.Create(ctx, "Dave"); !errors.Is(err, context.Canceled) {
		t.Errorf("Create = %v; want %v", err, context.Canceled)
	}
	if _, err := store.User(t.Context(), 4); !errors.Is(err, ErrNotFound) {
		t.Errorf("User(4) = %v; want ErrNotFound", err)
	}
}

func TestAClosedStoreIsA500ThatTellsNothing(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "user.db"))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	server := httptest.NewServer(NewHTTPHandler(NewEndpoints(NewService(store)), slog.New(slog.NewTextHandler(&logged, nil))))
	defer server.Close()
	resp, got := call(t, server, "GET", "/users/1", "", nil)
	if resp.StatusCode != http.StatusInternalServerError || strings.Contains(got, "sql") {
		t.Errorf("%d %s; want 500 without a word about SQL", resp.StatusCode, got)
	}
	if !strings.Contains(logged.String(), "read user 1: sql: database is closed") {
		t.Errorf("logged %q; want the cause", logged.String())
	}
	if err := store.Ping(t.Context()); err == nil {
		t.Error("Ping of a closed store = nil; want an error")
	}
}
