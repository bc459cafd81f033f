package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gofrs/flock"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if part := os.Getenv("SQLITE_TEST_PART"); part != "" {
		os.Exit(playPart(part))
	}
	goleak.VerifyTestMain(m)
}

// seeded is a schema with three rows to begin with.
var seeded = fstest.MapFS{
	"migrations/00001_create.sql": {Data: []byte(`-- +goose Up
CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, writer TEXT NOT NULL, n INTEGER NOT NULL) STRICT;
`)},
	"migrations/00002_seed.sql": {Data: []byte(`-- +goose Up
INSERT INTO notes (id, writer, n) VALUES (1, 'seed', 1), (2, 'seed', 2), (3, 'seed', 3);
`)},
}

func mustOpen(t *testing.T, path string, migrations fs.FS) *DB {
	t.Helper()
	db, err := Open(t.Context(), path, migrations)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func count(t *testing.T, db *DB, where string) int {
	t.Helper()
	var n int
	if err := db.Reads().QueryRowContext(t.Context(), "SELECT count(*) FROM notes WHERE "+where).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func insert(ctx context.Context, db *DB, writer string, n int) error {
	return db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO notes (writer, n) VALUES (?, ?)", writer, n)
		return err
	})
}

func TestEveryConnectionIsSetUpAsPromised(t *testing.T) {
	// A path with characters that mean something in a URI.
	db := mustOpen(t, filepath.Join(t.TempDir(), "a b?c#d%41.db"), seeded)
	for _, pool := range []struct {
		name            string
		db              *sql.DB
		conns           int
		busy, queryOnly string
	}{{"reads", db.reads, maxReaders, "0", "1"}, {"writes", db.writes, 1, "0", "0"}} {
		for range pool.conns {
			conn, err := pool.db.Conn(t.Context()) // kept, so that the next is another
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for pragma, want := range map[string]string{
				"journal_mode": "wal", "synchronous": "2", "busy_timeout": pool.busy, "foreign_keys": "1",
				"temp_store": "2", "query_only": pool.queryOnly,
			} {
				var got string
				if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("%s: %s is %s; want %s", pool.name, pragma, got, want)
				}
			}
		}
	}
}

func TestSeedIsSownOnceInTheDatabasesLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	db := mustOpen(t, path, seeded)
	if err := db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), "DELETE FROM notes WHERE id = 2")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, mustOpen(t, path, seeded), "writer = 'seed'"); n != 2 {
		t.Errorf("%d seeds after one of three was deleted and the database opened again; want 2", n)
	}
}

func TestDatabaseOfANewerProgramStillOpens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	newer := maps.Clone(seeded)
	newer["migrations/00003_more.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nALTER TABLE notes ADD COLUMN more TEXT;\n")}
	if err := mustOpen(t, path, newer).Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, mustOpen(t, path, seeded), "writer = 'seed'"); n != 3 {
		t.Errorf("%d seeds; want 3", n)
	}
}

func TestReadersCannotWrite(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "notes.db"), seeded)
	if _, err := db.Reads().ExecContext(t.Context(), "DELETE FROM notes"); err == nil {
		t.Error("a reader deleted all rows; want an error")
	}
}

func TestReadersAreNotStoppedByAWriter(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "notes.db"), seeded)
	err := db.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.Context(), "INSERT INTO notes (writer, n) VALUES ('w', 1)"); err != nil {
			return err
		}
		if n := count(t, db, "true"); n != 3 {
			t.Errorf("%d rows seen while a write is not committed; want 3", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, "true"); n != 4 {
		t.Errorf("%d rows seen after the commit; want 4", n)
	}
}

func TestFailedAndPanickingWritesLeaveNothingBehind(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "notes.db"), seeded)
	boom := errors.New("boom")
	half := func(end func() error) func(*sql.Tx) error {
		return func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(t.Context(), "DELETE FROM notes"); err != nil {
				t.Fatal(err)
			}
			return end()
		}
	}
	if err := db.Write(t.Context(), half(func() error { return boom })); !errors.Is(err, boom) {
		t.Errorf("Write = %v; want %v", err, boom)
	}
	func() {
		defer func() { _ = recover() }()
		_ = db.Write(t.Context(), half(func() error { panic(boom) }))
	}()
	if n := count(t, db, "true"); n != 3 {
		t.Errorf("%d rows; want 3", n)
	}
	// The one connection that writes must be free again.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := insert(ctx, db, "next", 1); err != nil {
		t.Errorf("write after a failed one: %v", err)
	}
}

func TestCancelledContextStopsARunningStatement(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "notes.db"), seeded)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	done := make(chan error, 1)
	go func() {
		var n int
		done <- db.Reads().QueryRowContext(ctx,
			"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c) SELECT count(*) FROM c").Scan(&n)
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a statement without an end ended without an error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the statement still runs 20 s after its context was cancelled")
	}
	if n := count(t, db, "true"); n != 3 {
		t.Errorf("%d rows read after an interrupted statement; want 3", n)
	}
}

func TestWritersWaitForTheWriterOfAnotherProcessAndThenAreBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	mine, other := mustOpen(t, path, seeded), mustOpen(t, path, seeded)
	held, release := make(chan struct{}), make(chan struct{})
	var holder, waiters sync.WaitGroup
	holder.Go(func() {
		if err := other.Write(t.Context(), func(*sql.Tx) error { close(held); <-release; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := insert(ctx, mine, "mine", 0); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrBusy) {
		t.Errorf("write beside a writer, with 20 ms of time = %v; want %v alone", err, context.DeadlineExceeded)
	}
	// All of them wait for BusyTimeout together, not one after the other.
	began := time.Now()
	for n := range 5 {
		waiters.Go(func() {
			if err := insert(t.Context(), mine, "mine", n); !errors.Is(err, ErrBusy) {
				t.Errorf("write beside a writer = %v; want ErrBusy", err)
			}
		})
	}
	waiters.Wait()
	if waited := time.Since(began); waited < BusyTimeout || waited > 4*BusyTimeout {
		t.Errorf("5 writers gave up after %v; want about %v", waited, BusyTimeout)
	}
	close(release)
	holder.Wait()
	if err := insert(t.Context(), mine, "mine", 9); err != nil {
		t.Errorf("write after the other writer: %v", err)
	}
	if n := count(t, mine, "writer = 'mine'"); n != 1 {
		t.Errorf("%d rows; want the 1 that was acknowledged", n)
	}
}

func TestFullDatabaseIsReportedAsFull(t *testing.T) {
	db := mustOpen(t, filepath.Join(t.TempDir(), "notes.db"), seeded)
	err := db.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.Context(), "PRAGMA max_page_count = 1"); err != nil {
			return err
		}
		for n := range 10_000 {
			if _, err := tx.ExecContext(t.Context(), "INSERT INTO notes (writer, n) VALUES (?, ?)", strings.Repeat("x", 1000), n); err != nil {
				return fmt.Errorf("insert: %w", err)
			}
		}
		return nil
	})
	if !errors.Is(err, ErrFull) {
		t.Errorf("write to a full database = %v; want ErrFull", err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("a full database can't be read: %v", err)
	}
}

func TestOpenSaysInOneLineWhatIsWrongAndWhatIsWanted(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("no database, but long enough to be told from one: "+strings.Repeat("x", 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path string
		migrations fs.FS
		want       []string
	}{
		{"no path", "", seeded, []string{`""`, "the path is empty"}},
		{"no folder", filepath.Join(dir, "none", "x.db"), seeded, []string{filepath.Join(dir, "none"), "is not there; want"}},
		{"folder is a file", filepath.Join(file, "x.db"), seeded, []string{file, "is no folder; want"}},
		{"file is a folder", dir, seeded, []string{dir, "no file; want"}},
		{"no database", file, seeded, []string{file, "not a database"}},
		{"broken migration", filepath.Join(dir, "y.db"), fstest.MapFS{"migrations/00001_x.sql": {Data: []byte("-- +goose Up\nCREATE TABEL x;\n")}}, []string{"migrate", "TABEL"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			db, err := Open(t.Context(), test.path, test.migrations)
			if err == nil {
				_ = db.Close()
				t.Fatal("Open succeeded; want an error")
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Open = %v; want it to hold %q", err, want)
				}
			}
		})
	}
}

func TestOpenWaitsForTheFileLockUntilItsContextEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	lock := flock.New(path + ".lock")
	if ok, err := lock.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, path, seeded)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), path+".lock") {
		t.Errorf("Open beside a held lock = %v; want a deadline that names the lock", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the database was touched without the lock: %v", err)
	}
	opened := make(chan error, 1)
	go func() {
		db, err := Open(t.Context(), path, seeded)
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	time.Sleep(30 * time.Millisecond)
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("Open after the lock was released: %v", err)
	}
}

func TestMigrationWaitsForTheWriterOfAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	other := mustOpen(t, path, seeded)
	newer := maps.Clone(seeded)
	newer["migrations/00003_more.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nALTER TABLE notes ADD COLUMN more TEXT;\n")}
	held, opened := make(chan struct{}), make(chan error, 1)
	go func() {
		<-held
		db, err := Open(t.Context(), path, newer)
		if err == nil {
			_, err = db.Reads().ExecContext(t.Context(), "SELECT more FROM notes")
			err = errors.Join(err, db.Close())
		}
		opened <- err
	}()
	if err := other.Write(t.Context(), func(*sql.Tx) error {
		close(held)
		time.Sleep(100 * time.Millisecond)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
