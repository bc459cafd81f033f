package idempotency

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/sqlite"
)

// migration is the one that the services have of their own, each.
const migration = "migrations/00003_idempotency.sql"

func open(t *testing.T) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "keys.db"), os.DirFS("../../order"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// once does r at the given time, and reports whether it was done now.
func once(t *testing.T, db *sqlite.DB, r Request, now time.Time, fail error) (a Answer, done bool, err error) {
	t.Helper()
	err = db.Write(t.Context(), func(tx *sql.Tx) (err error) {
		a, err = Do(t.Context(), tx, r, now, func() (Answer, error) {
			done = true
			return Answer{Status: 201, Location: "/x/1", Body: []byte("{}\n")}, fail
		})
		return err
	})
	return a, done, err
}

func TestServicesHaveTheSameTable(t *testing.T) {
	one, err := os.ReadFile("../../order/" + migration)
	other, otherErr := os.ReadFile("../../user/" + migration)
	if err := errors.Join(err, otherErr); err != nil || string(one) != string(other) {
		t.Errorf("%s of order and of user differ (%v)", migration, err)
	}
}

func TestKeyIsDoneOnceForADay(t *testing.T) {
	db, r, now := open(t), Request{Key: "k", Scope: "POST /x", Digest: [32]byte{1}}, time.Unix(1_700_000_000, 0)
	if _, _, err := once(t, db, r, now, errors.New("boom")); err == nil {
		t.Fatal("an error of do was lost")
	}
	for _, step := range []struct {
		after time.Duration
		done  bool
	}{{0, true}, {0, false}, {Life - time.Second, false}, {Life, true}, {Life + time.Hour, false}} {
		a, done, err := once(t, db, r, now.Add(step.after), nil)
		if err != nil || done != step.done || a.Replayed == step.done || a.Status != 201 || a.Location != "/x/1" || string(a.Body) != "{}\n" {
			t.Errorf("after %v: %+v, done %v, %v; want done %v", step.after, a, done, err, step.done)
		}
	}
	other := r
	other.Digest[0] = 2
	if _, done, err := once(t, db, other, now.Add(Life), nil); !errors.Is(err, ErrReused) || done {
		t.Errorf("the key with another body: done %v, %v; want ErrReused", done, err)
	}
	other.Scope = "POST /y"
	if _, done, err := once(t, db, other, now.Add(Life), nil); !done || err != nil {
		t.Errorf("the key at another path: done %v, %v; want it done", done, err)
	}
	for range 2 {
		if _, done, err := once(t, db, Request{}, now, nil); !done || err != nil {
			t.Errorf("without a key: done %v, %v; want it done each time", done, err)
		}
	}
}

func TestOldKeysAreRemovedABatchAtATime(t *testing.T) {
	db, now := open(t), time.Unix(1_700_000_000, 0)
	for n := range batch + 20 {
		if _, _, err := once(t, db, Request{Key: fmt.Sprint(n), Scope: "POST /x"}, now, nil); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range []int{20 + 1, 2} {
		if _, _, err := once(t, db, Request{Key: fmt.Sprint("new", n), Scope: "POST /x"}, now.Add(Life), nil); err != nil {
			t.Fatal(err)
		}
		var left int
		if err := db.Reads().QueryRowContext(t.Context(), "SELECT count(*) FROM idempotency_keys").Scan(&left); err != nil || left != want {
			t.Errorf("%d keys are left, %v; want %d", left, err, want)
		}
	}
}
