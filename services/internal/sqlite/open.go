package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

const (
	// maxReaders is how many reads run at once in one process; more wait for
	// one of them to end, or for their context.
	maxReaders = 8
	// lockPoll is how often a process that waits for the file lock tries again.
	lockPoll = 10 * time.Millisecond
)

// Open opens the database at path, and creates it if it is not there. The folder
// must be there, and this process must be able to write to it: SQLite keeps two
// files beside the database, and we a third one, path + ".lock".
//
// The migrations (migrations/*.sql, in goose's format and order) are applied once in the
// database's life; rows to begin with are a migration too. Processes that open
// the same database at once do all of that one after the other. Waiting for
// them, and the work itself, ends with ctx.
func Open(ctx context.Context, path string, migrations fs.FS) (*DB, error) {
	schema, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("find the migrations: %w", err)
	}
	db, err := open(ctx, path, schema)
	if err != nil {
		return nil, fmt.Errorf("open database %q: %w", path, err)
	}
	return db, nil
}

func open(ctx context.Context, path string, migrations fs.FS) (*DB, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	lock := flock.New(path + ".lock")
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for %q, which another process holds: %w", lock.Path(), context.Cause(ctx))
		}
		return nil, fmt.Errorf("folder %q can't be written to by user %d; want one that can: %w", filepath.Dir(path), os.Getuid(), err)
	}
	db, err := openLocked(ctx, path, migrations)
	if unlockErr := lock.Unlock(); err == nil && unlockErr != nil {
		return nil, errors.Join(unlockErr, db.Close())
	}
	return db, err
}

// checkPath finds the mistakes that people make, since SQLite calls each of
// them "unable to open database file".
func checkPath(path string) error {
	if path == "" {
		return errors.New("the path is empty; want a file in a folder that is there and can be written to")
	}
	folder := filepath.Dir(path)
	switch info, err := os.Stat(folder); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("folder %q is not there; want one that is there and can be written to", folder)
	case err != nil:
		return fmt.Errorf("folder %q can't be used; want one that is there and can be written to: %w", folder, err)
	case !info.IsDir():
		return fmt.Errorf("%q is no folder; want one that is there and can be written to", folder)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return errors.New("there is something there that is no file; want a database file or nothing")
	}
	return nil
}

func openLocked(ctx context.Context, path string, migrations fs.FS) (_ *DB, err error) {
	db := &DB{}
	if db.writes, err = connect(path, 1, "immediate", "busy_timeout(0)"); err != nil {
		return nil, err
	}
	if db.reads, err = connect(path, maxReaders, "deferred", readerPragmas...); err != nil {
		return nil, errors.Join(err, db.writes.Close())
	}
	if err := db.prepare(ctx, path, migrations); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// prepare migrates through a connection of its own, which waits for writers in
// SQLite's way: it has goose's statements to run, not ours.
func (db *DB) prepare(ctx context.Context, path string, migrations fs.FS) error {
	setup, err := connect(path, 1, "immediate")
	if err != nil {
		return err
	}
	if err := migrate(ctx, setup, migrations); err != nil {
		return errors.Join(err, setup.Close())
	}
	// The reading comes first: with its last connection SQLite would take WAL
	// down again.
	return errors.Join(db.Ping(ctx), setup.Close())
}

// readerPragmas leave the waiting to Read.
var readerPragmas = []string{"busy_timeout(0)", "query_only(ON)"}

// connect makes a pool of at most n connections, which are opened when they are
// needed, and kept. Each is set up in the same way; pragmas come last.
//
//   - immediate takes the write lock at the beginning: a transaction that first
//     reads and then wants to write can't wait, it fails at once with
//     SQLITE_BUSY (https://www.sqlite.org/isolation.html).
//   - synchronous=FULL, since in WAL mode NORMAL may lose the last commits when
//     the machine goes down (https://www.sqlite.org/pragma.html#pragma_synchronous),
//     and we have told somebody that they are safe. It costs one fsync a write.
//   - temp_store=MEMORY, since there may be no folder for temporary files.
func connect(path string, n int, txlock string, pragmas ...string) (*sql.DB, error) {
	query := url.Values{
		"_txlock":       {txlock},
		"_busy_timeout": {strconv.FormatInt(BusyTimeout.Milliseconds(), 10)}, // comes first
		"_dqs":          {"0"},                                               // "x" is never a text
		"_error_rc":     {"1"},                                               // no stale texts in errors
		"_pragma":       append([]string{"synchronous(FULL)", "foreign_keys(ON)", "temp_store(MEMORY)"}, pragmas...),
	}
	// A URI, so that a path may hold any character, "?" included.
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: filepath.Clean(path), RawQuery: query.Encode()}
	pool, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(n)
	pool.SetMaxIdleConns(n)
	return pool, nil
}

// migrate brings the database into WAL mode and to the newest version that we
// know. A database from a newer program is left as it is.
func migrate(ctx context.Context, db *sql.DB, migrations fs.FS) error {
	var mode string
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return fmt.Errorf("switch to WAL: %w", Classify(err))
	}
	if mode != "wal" {
		return fmt.Errorf("switch to WAL: SQLite stays in mode %q; want a file system that can share memory", mode)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, migrations, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", Classify(err))
	}
	return nil
}
