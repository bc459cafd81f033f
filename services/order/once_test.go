package order

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
)

// instance is one of several on one database.
func instance(t *testing.T, path string, users Users) (*httptest.Server, *SQLite) {
	t.Helper()
	store := openStore(t, path)
	service, err := NewService(Config{Store: store, Users: users})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(NewHTTPHandler(NewEndpoints(service), slog.New(slog.DiscardHandler)))
	t.Cleanup(server.Close)
	return server, store
}

// place posts an order with a key; it gives status, Location and body in one
// line, and whether it is a replay.
func place(t *testing.T, server *httptest.Server, path, key, body string) (answer string, replayed bool) {
	t.Helper()
	return placeAt(t, server.Client(), server.URL+path, key, body)
}

func placeAt(t *testing.T, client *http.Client, url, key, body string) (answer string, replayed bool) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(idempotency.Header, key)
	resp, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return "", false
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.Status + " " + resp.Header.Get("Location") + " " + string(got), resp.Header.Get(idempotency.ReplayedHeader) == "true"
}

func TestRepeatedKeyGetsTheFirstAnswerFromAnyInstanceEvenWithoutUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "order.db")
	var gone atomic.Bool
	users := NewUsers(func(ctx context.Context, request any) (any, error) {
		if gone.Load() {
			return away(ctx, request)
		}
		return known(ctx, request)
	}, 0)
	one, _ := instance(t, path, users)
	other, store := instance(t, path, users)
	const want = "201 Created /orders/1/104 {\"order_id\":104,\"item\":\"Desk\"}\n"
	if got, replayed := place(t, one, "/orders/1", "k", `{"item":"Desk"}`); got != want || replayed {
		t.Fatalf("the first: %s, replayed %v; want %s", got, replayed, want)
	}
	gone.Store(true)
	if got, replayed := place(t, other, "/orders/1", `"k"`, `{"item":"Desk"}`); got != want || !replayed {
		t.Errorf("the second, elsewhere: %s, replayed %v; want %s again", got, replayed, want)
	}
	if got, _ := place(t, other, "/orders/1", "k", `{"item":"Desk" }`); !strings.HasPrefix(got, "422 ") {
		t.Errorf("the key with other bytes: %s; want 422", got)
	}
	if got, _ := place(t, other, "/orders/1", "", `{"item":"Desk"}`); !strings.HasPrefix(got, "400 ") {
		t.Errorf("an empty key: %s; want 400", got)
	}
	// An error is not kept.
	if got, _ := place(t, one, "/orders/1", "later", `{"item":"Lamp"}`); !strings.HasPrefix(got, "503 ") {
		t.Errorf("without user: %s; want 503", got)
	}
	gone.Store(false)
	if got, replayed := place(t, one, "/orders/1", "later", `{"item":"Lamp"}`); !strings.HasPrefix(got, "201 ") || replayed {
		t.Errorf("with user again: %s, replayed %v; want 201", got, replayed)
	}
	if orders, err := store.Orders(t.Context(), 1, 0, 1000); len(orders) != 4 || err != nil {
		t.Errorf("%v, %v; want 2 of the seed and 2", orders, err)
	}
}

func TestOneKeyAtTwoInstancesAtOnceIsOneOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "order.db")
	one, _ := instance(t, path, NewUsers(known, 0))
	other, store := instance(t, path, NewUsers(known, 0))
	var wg sync.WaitGroup
	answers := make([]string, 16)
	for n := range answers {
		wg.Go(func() {
			answers[n], _ = place(t, []*httptest.Server{one, other}[n%2], "/orders/3", "k", `{"item":"Desk"}`)
		})
	}
	wg.Wait()
	for _, got := range answers {
		if got != answers[0] || !strings.HasPrefix(got, "201 ") {
			t.Errorf("got %s and %s; want the same 201", got, answers[0])
		}
	}
	if orders, err := store.Orders(t.Context(), 3, 0, 1000); len(orders) != 1 || err != nil {
		t.Errorf("%v, %v; want one order", orders, err)
	}
}

func TestFullDiskIs507AndReadsAndReplaysGoOnAndItHeals(t *testing.T) {
	server, store := instance(t, filepath.Join(t.TempDir(), "order.db"), NewUsers(known, 0))
	first, _ := place(t, server, "/orders/1", "before", `{"item":"Desk"}`)
	pages := func(most string) {
		t.Helper()
		if err := store.db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), "PRAGMA max_page_count = "+most)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	pages("1") // SQLite makes it what the database has now
	item := `{"item":"` + strings.Repeat("x", 200) + `"}`
	full, placed := "", 0
	for range 500 { // there may be room in the last pages
		r, err := http.Post(server.URL+"/orders/2", "application/json", strings.NewReader(item))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode == http.StatusInsufficientStorage {
			full = r.Header.Get("Retry-After")
			break
		}
		placed++
	}
	if full != "5" {
		t.Fatalf("Retry-After %q after %d orders; want a 507 with 5", full, placed)
	}
	if orders, err := store.Orders(t.Context(), 2, 0, 1000); len(orders) != 1+placed || err != nil {
		t.Errorf("%d orders, %v; want %d: nothing half-written", len(orders), err, 1+placed)
	}
	if got, replayed := place(t, server, "/orders/1", "before", `{"item":"Desk"}`); got != first || !replayed {
		t.Errorf("a replay while the disk is full: %s; want %s", got, first)
	}
	pages("1000000")
	if got, _ := place(t, server, "/orders/2", "after", item); !strings.HasPrefix(got, "201 ") {
		t.Errorf("with room again: %s; want 201", got)
	}
}

func TestCancelledPlaceOnceLeavesNeitherOrderNorKeyNorLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "order.db")
	mine, other := openStore(t, path), openStore(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	r := idempotency.Request{Key: "k", Scope: "POST /orders/1"}
	_, err := mine.PlaceOnce(ctx, 1, "Desk", r, func(user int64, o Order) (idempotency.Answer, error) {
		cancel() // the order is written, its key is not
		return tellPlaced(user, o)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("PlaceOnce = %v; want %v", err, context.Canceled)
	}
	if _, found, err := other.Placed(t.Context(), r); found || err != nil {
		t.Errorf("the key is there: %v, %v", found, err)
	}
	if o, err := other.Place(t.Context(), 1, "Lamp"); o.ID != 104 || err != nil {
		t.Errorf("Place of another = %v, %v; want 104, at once", o, err)
	}
}
