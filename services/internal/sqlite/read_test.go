package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestReaderThatWaitsForAnotherProcessStopsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	if err := mustOpen(t, path, seeded).Close(); err != nil {
		t.Fatal(err)
	}
	// One that keeps the whole database for itself, as recovery does for a moment.
	other, err := connect(path, 1, "immediate", "locking_mode(EXCLUSIVE)")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.ExecContext(t.Context(), "INSERT INTO notes (writer, n) VALUES ('other', 1)"); err != nil {
		t.Fatal(err)
	}
	reads, err := connect(path, maxReaders, "deferred", readerPragmas...)
	if err != nil {
		t.Fatal(err)
	}
	defer reads.Close()
	db := &DB{reads: reads}
	rows := func(ctx context.Context) (n int, err error) {
		err = db.Read(ctx, func(from *sql.DB) error {
			return from.QueryRowContext(ctx, "SELECT count(*) FROM notes").Scan(&n)
		})
		return n, err
	}

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := rows(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > BusyTimeout*3/4 {
		t.Errorf("a reading with 50ms of time = %v after %v; want %v soon", err, time.Since(began), context.DeadlineExceeded)
	}
	if _, err := rows(t.Context()); !errors.Is(err, ErrBusy) || time.Since(began) < BusyTimeout {
		t.Errorf("a reading with all the time = %v after %v; want ErrBusy after %v", err, time.Since(began), BusyTimeout)
	}
	go func() { // while the next one waits
		time.Sleep(50 * time.Millisecond)
		_ = other.Close()
	}()
	if n, err := rows(t.Context()); n != 4 || err != nil {
		t.Errorf("a reading while the other leaves = %d, %v; want 4 rows", n, err)
	}
}
