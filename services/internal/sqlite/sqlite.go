// Package sqlite opens a SQLite database that several processes share: one file
// in one folder, in WAL mode, migrated under a file lock.
//
// All processes must be on one machine, since WAL shares memory between them
// (https://www.sqlite.org/wal.html). A [DB] is safe for any number of
// goroutines. An acknowledged write is on the disk.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rollcall-mesh/rollcall/observability/tracing"
)

const (
	// BusyTimeout is how long a reading or a write waits for another process.
	BusyTimeout = 2 * time.Second
	// minPause and maxPause bound how long one that waits for another process
	// sleeps before it asks again.
	minPause = 200 * time.Microsecond
	maxPause = 3 * time.Millisecond
)

// DB is an open database: a pool of connections that can only read, and one
// connection that writes. With one writer a process, those of the same process
// wait in line for each other, and only processes compete for SQLite's lock.
type DB struct {
	reads, writes *sql.DB
}

// Reads returns the connections for reading. Writing through them fails, and a
// statement that would have to wait for another process is busy at once: Read
// waits.
func (db *DB) Reads() *sql.DB { return db.reads }

// Read runs do with the connections for reading. A writer stops no reader, but
// a process that mends or closes the database may: then do is run again, until
// ctx ends or BusyTimeout is over, and in the latter case the error wraps
// ErrBusy.
func (db *DB) Read(ctx context.Context, do func(from *sql.DB) error) (err error) {
	ctx, end := tracing.Start(ctx, "sqlite read")
	defer func() { end(ignoreNoRows(err)) }()
	return patiently(ctx, time.Now().Add(BusyTimeout), func() error { return do(db.reads) })
}

// Write runs do in a transaction that holds the write lock from the beginning,
// and commits it if do returns nil. It waits for its turn, behind the writers of
// this process and of others, until ctx ends or BusyTimeout is over; then the
// error wraps ErrBusy. do must use tx and nothing else of the database.
func (db *DB) Write(ctx context.Context, do func(tx *sql.Tx) error) (err error) {
	ctx, end := tracing.Start(ctx, "sqlite write")
	defer func() { end(ignoreNoRows(err)) }()
	giveUp := time.Now().Add(BusyTimeout)
	conn, err := db.turn(ctx, giveUp)
	if err != nil {
		return fmt.Errorf("wait for our turn to write: %w", err)
	}
	// Gives it back to the pool; the errors that matter come from the commit.
	defer func() { _ = conn.Close() }()
	tx, err := begin(ctx, conn, giveUp)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	// Does nothing after a commit. After an error or a panic in do it frees the
	// write lock; its own error adds nothing to do's.
	defer func() { _ = tx.Rollback() }()
	if err := do(tx); err != nil {
		return Classify(err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", Classify(err))
	}
	return nil
}

// ignoreNoRows is the error of a reading or a write, as its span tells it: that there is
// no such row is an answer.
func ignoreNoRows(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}

// turn waits for the one connection that writes.
func (db *DB) turn(ctx context.Context, giveUp time.Time) (*sql.Conn, error) {
	waiting, cancel := context.WithDeadline(ctx, giveUp)
	defer cancel()
	conn, err := db.writes.Conn(waiting)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("%w: others of this process are still writing after %v", ErrBusy, BusyTimeout)
	}
	return conn, Classify(err)
}

// begin takes the write lock.
func begin(ctx context.Context, conn *sql.Conn, giveUp time.Time) (tx *sql.Tx, err error) {
	err = patiently(ctx, giveUp, func() error {
		tx, err = conn.BeginTx(ctx, nil)
		return err
	})
	return tx, err
}

// patiently tries again for as long as another process is in the way. SQLite's
// own way of waiting is to sleep longer and longer, up to 100 ms a time,
// whatever becomes of the context; a process that waits like that is starved by
// one that writes again at once. Asking often, at odd times, gives all processes
// their turn.
func patiently(ctx context.Context, giveUp time.Time, try func() error) error {
	var timer *time.Timer
	for {
		err := try()
		if !errors.Is(err, ErrBusy) {
			err = Classify(err)
		}
		if !errors.Is(err, ErrBusy) || time.Now().After(giveUp) {
			return err
		}
		pause := minPause + rand.N(maxPause-minPause)
		if timer == nil {
			timer = time.NewTimer(pause)
			defer timer.Stop()
		} else {
			timer.Reset(pause)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (last answer: %s)", context.Cause(ctx), err.Error())
		}
	}
}

// Ping reports whether the database answers: it reads from it.
func (db *DB) Ping(ctx context.Context) error {
	var tables int
	if err := db.Read(ctx, func(from *sql.DB) error {
		return from.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables)
	}); err != nil {
		return fmt.Errorf("read from the database: %w", err)
	}
	return nil
}

// Close closes all connections. Closing again does nothing.
func (db *DB) Close() error { return errors.Join(db.reads.Close(), db.writes.Close()) }
