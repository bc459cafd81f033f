package order

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"modernc.org/sqlite"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
)

// inside is called from within an INSERT, by the trigger of the test below.
var inside atomic.Pointer[func()]

var hookInsert = sync.OnceValue(func() error {
	return sqlite.RegisterFunction("test_inside", &sqlite.FunctionImpl{Scalar: func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		(*inside.Load())()
		return int64(0), nil
	}})
})

// watched is a store that notes how PlaceOnce went.
type watched struct {
	*SQLite
	inserted atomic.Bool
	ended    chan error
}

func (w *watched) PlaceOnce(ctx context.Context, user int64, item string, r idempotency.Request, tell Tell) (idempotency.Answer, error) {
	answer, err := w.SQLite.PlaceOnce(ctx, user, item, r, func(user int64, o Order) (idempotency.Answer, error) {
		w.inserted.Store(true)
		return tell(user, o)
	})
	w.ended <- err
	return answer, err
}

func TestInsertWhoseCallerHasGoneStopsInTheMiddle(t *testing.T) {
	if err := hookInsert(); err != nil {
		t.Fatal(err)
	}
	store := &watched{SQLite: openStore(t, filepath.Join(t.TempDir(), "order.db")), ended: make(chan error, 1)}
	// An INSERT that takes many seconds, unless it is stopped.
	if err := store.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), `CREATE TRIGGER slow AFTER INSERT ON orders BEGIN
			SELECT test_inside();
			SELECT count(*) FROM (WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000000) SELECT x FROM n);
		END`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	service, err := NewService(Config{Store: store, Users: NewUsers(known, 0)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(NewHTTPHandler(NewEndpoints(service), slog.New(slog.DiscardHandler)))
	defer server.Close()

	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	called := func() { leave() }
	inside.Store(&called)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/orders/1", strings.NewReader(`{"item":"Desk"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(idempotency.Header, "k")
	if resp, err := server.Client().Do(r); err == nil {
		resp.Body.Close()
		t.Fatalf("%s; want that the caller has gone", resp.Status)
	}
	if err := <-store.ended; err == nil || store.inserted.Load() {
		t.Errorf("the INSERT went on to its end: %v, %v; want it stopped when its caller went", store.inserted.Load(), err)
	}
	if orders, err := store.Orders(t.Context(), 1, 0, 100); len(orders) != 2 || err != nil {
		t.Errorf("%v, %v; want the two of the seed", orders, err)
	}
}
