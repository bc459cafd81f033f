package idempotency

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/sqlite"
)

const (
	// Life is how long a key is known, from its first answer on.
	Life = 24 * time.Hour
	// batch is how many keys whose time is over one keyed write removes, at
	// most: more than it adds, and little enough not to be noticed.
	batch = 100
)

// ErrReused is the error, wrapped, of a request whose key was used before, with
// another body.
var ErrReused = errors.New("the idempotency key was used before, with another body")

// Answer is what is kept: the answer's status, its Location and its body.
type Answer struct {
	Status   int
	Location string // "" means none
	Body     []byte // application/json
	// Replayed says that it was given before. It is not kept.
	Replayed bool
}

// Write sends the answer.
func (a Answer) Write(w http.ResponseWriter) {
	header := w.Header()
	if a.Replayed {
		header.Set(ReplayedHeader, "true")
	}
	if a.Location != "" {
		header.Set("Location", a.Location)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(a.Body)))
	w.WriteHeader(a.Status)
	// Fails when nobody reads any more: there is nobody to tell.
	_, _ = w.Write(a.Body)
}

// reader is a *sql.DB or a *sql.Tx.
type reader interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Find returns the answer that was kept for r, and whether there is one: not if
// r has no key. now is the time. A key that was used with another body is
// ErrReused.
func Find(ctx context.Context, from reader, r Request, now time.Time) (Answer, bool, error) {
	if !r.Keyed() {
		return Answer{}, false, nil
	}
	a := Answer{Replayed: true}
	var digest []byte
	err := from.QueryRowContext(ctx, "SELECT digest, status, location, body FROM idempotency_keys WHERE scope = ? AND key = ? AND made_at > ?",
		r.Scope, r.Key, oldest(now)).Scan(&digest, &a.Status, &a.Location, &a.Body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Answer{}, false, nil
	case err != nil:
		return Answer{}, false, fmt.Errorf("look for the idempotency key: %w", sqlite.Classify(err))
	case !bytes.Equal(digest, r.Digest[:]):
		return Answer{}, false, ErrReused
	}
	return a, true, nil
}

// Do calls do in the transaction tx, which must hold the write lock, unless an
// answer was kept for r; and keeps its answer if r has a key. An error of do is
// returned, and nothing is kept: a later request with the key may succeed.
func Do(ctx context.Context, tx *sql.Tx, r Request, now time.Time, do func() (Answer, error)) (Answer, error) {
	kept, found, err := Find(ctx, tx, r, now)
	if err != nil || found {
		return kept, err
	}
	answer, err := do()
	if err != nil || !r.Keyed() {
		return answer, err
	}
	// Those whose time is over, the oldest first; and this very one, which must
	// make room.
	for _, stale := range []struct {
		query string
		args  []any
	}{
		{"DELETE FROM idempotency_keys WHERE (scope, key) IN (SELECT scope, key FROM idempotency_keys WHERE made_at <= ? ORDER BY made_at LIMIT ?)", []any{oldest(now), batch}},
		{"DELETE FROM idempotency_keys WHERE scope = ? AND key = ?", []any{r.Scope, r.Key}},
	} {
		if _, err := tx.ExecContext(ctx, stale.query, stale.args...); err != nil {
			return Answer{}, fmt.Errorf("remove old idempotency keys: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO idempotency_keys (scope, key, digest, status, location, body, made_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
		r.Scope, r.Key, r.Digest[:], answer.Status, answer.Location, answer.Body, now.Unix()); err != nil {
		return Answer{}, fmt.Errorf("keep the idempotency key: %w", err)
	}
	return answer, nil
}

// oldest is the Unix time up to which a key's time is over.
func oldest(now time.Time) int64 { return now.Add(-Life).Unix() }
