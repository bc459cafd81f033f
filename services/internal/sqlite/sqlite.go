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
)

const (
	// BusyTimeout is how long a statement waits for another process' write.
	BusyTimeout = 2 * time.Second
	// minPause and maxPause bound how long a writer that waits for another
	// process sleeps before it asks again.
	minPause = 200 * time.Microsecond
	maxPause = 3 * time.Millisecond
)

// DB is an open database: a pool of connections that can only read, and one
// connection that writes. With one writer a process, those of the same process
// wait in line for each other, and only processes compete for SQLite's lock.
type DB struct {
	reads, writes *sql.DB
}

// Reads returns the connections for reading. Writing through them fails.
func (db *DB) Reads() *sql.DB { return db.reads }

// Write runs do in a transaction that holds the write lock from the beginning,
// and commits it if do returns nil. It waits for its turn, behind the writers of
// this process and of others, until ctx ends or BusyTimeout is over; then the
// error wraps ErrBusy. do must use tx and nothing else of the database.
func (db *DB) Write(ctx context.Context, do func(tx *sql.Tx) error) error {
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

// begin takes the write lock. SQLite's own way of waiting for it is to sleep
// longer and longer, up to 100 ms a time, whatever becomes of the context; a
// process that waits like that is starved by one that writes again at once.
// Asking often, at odd times, gives all processes their turn.
func begin(ctx context.Context, conn *sql.Conn, giveUp time.Time) (*sql.Tx, error) {
	var timer *time.Timer
	for {
		tx, err := conn.BeginTx(ctx, nil)
		err = Classify(err)
		if err == nil || !errors.Is(err, ErrBusy) || time.Now().After(giveUp) {
			return tx, err
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
			return nil, fmt.Errorf("%w (last answer: %s)", context.Cause(ctx), err.Error())
		}
	}
}

// Ping reports whether the database answers: it reads from it.
func (db *DB) Ping(ctx context.Context) error {
	var tables int
	if err := db.reads.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return fmt.Errorf("read from the database: %w", Classify(err))
	}
	return nil
}

// Close closes all connections. Closing again does nothing.
func (db *DB) Close() error { return errors.Join(db.reads.Close(), db.writes.Close()) }
