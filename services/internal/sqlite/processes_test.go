package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests start the test's own binary again, as the processes that share a
// database. SQLITE_TEST_PART says which part such a process plays.

// playPart is the main function of such a process. For each line that it reads,
// the path of a database, it plays its part and says "done".
func playPart(part string) int {
	play := map[string]func(context.Context, *DB) error{"open": lookAround, "write": writeALot}[part]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	paths := bufio.NewScanner(os.Stdin)
	for paths.Scan() {
		if err := playOn(ctx, paths.Text(), play); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println("done")
	}
	return 0
}

func playOn(ctx context.Context, path string, play func(context.Context, *DB) error) error {
	db, err := Open(ctx, path, seeded)
	if err != nil {
		return err
	}
	return errors.Join(play(ctx, db), db.Close())
}

// lookAround looks for the seed, and adds a row of its own.
func lookAround(ctx context.Context, db *DB) error {
	var n int
	if err := db.Reads().QueryRowContext(ctx, "SELECT count(*) FROM notes WHERE writer = 'seed'").Scan(&n); err != nil {
		return err
	}
	if n != 3 {
		return fmt.Errorf("%d seeds; want 3", n)
	}
	return insert(ctx, db, strconv.Itoa(os.Getpid()), 0)
}

const writersPerProcess, writesPerWriter = 4, 50

// writeALot writes from several goroutines as fast as it can, and reads each
// row back, as a server under load does.
func writeALot(ctx context.Context, db *DB) error {
	errs := make([]error, writersPerProcess)
	var wg sync.WaitGroup
	for w := range writersPerProcess {
		wg.Go(func() {
			writer := fmt.Sprintf("%d/%d", os.Getpid(), w)
			for n := range writesPerWriter {
				if errs[w] = insert(ctx, db, writer, n); errs[w] != nil {
					return
				}
				var found int
				errs[w] = db.Reads().QueryRowContext(ctx, "SELECT count(*) FROM notes WHERE writer = ? AND n = ?", writer, n).Scan(&found)
				if errs[w] == nil && found != 1 {
					errs[w] = fmt.Errorf("row %d of %s is there %d times right after its commit", n, writer, found)
				}
				if errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// process is one that was started and waits for paths.
type process struct {
	cmd    *exec.Cmd
	paths  io.WriteCloser
	done   *bufio.Scanner
	errors bytes.Buffer
}

// start starts processes that play a part; they end with the test.
func start(t *testing.T, n int, part string) []*process {
	t.Helper()
	processes := make([]*process, n)
	for i := range processes {
		p := &process{cmd: exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])} // ends with its input
		p.cmd.Env = append(os.Environ(), "SQLITE_TEST_PART="+part)
		p.cmd.Stderr = &p.errors
		stdin, err := p.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := p.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		p.paths, p.done = stdin, bufio.NewScanner(stdout)
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = p.paths.Close()
			if err := p.cmd.Wait(); err != nil {
				t.Errorf("process %d of %d: %v: %s", i+1, n, err, p.errors.String())
			}
		})
		processes[i] = p
	}
	return processes
}

// playTogether lets all processes play on the same database at once, and waits
// for them.
func playTogether(t *testing.T, processes []*process, path string) {
	t.Helper()
	for _, p := range processes {
		if _, err := io.WriteString(p.paths, path+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range processes {
		if !p.done.Scan() {
			t.Fatalf("process %d of %d has ended early", i+1, len(processes)) // its error comes with the cleanup
		}
	}
}

func TestFiveProcessesOnAnEmptyFolderSowOneSeedTwentyTimes(t *testing.T) {
	processes := start(t, 5, "open")
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "notes.db")
		playTogether(t, processes, path)
		db := mustOpen(t, path, seeded)
		if n := count(t, db, "writer = 'seed'"); n != 3 {
			t.Errorf("round %d: %d seeds; want 3", round, n)
		}
		if n := count(t, db, "writer <> 'seed'"); n != 5 {
			t.Errorf("round %d: %d rows of 5 processes; want 5", round, n)
		}
		if t.Failed() {
			return
		}
	}
}

func TestThreeProcessesWritingUnderLoadLoseNothingAndAreNeverBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	playTogether(t, start(t, 3, "write"), path)
	db := mustOpen(t, path, seeded)
	want := 3 * writersPerProcess * writesPerWriter
	if n := count(t, db, "writer <> 'seed'"); n != want {
		t.Errorf("%d rows; want %d", n, want)
	}
	var least int
	if err := db.Reads().QueryRowContext(t.Context(),
		"SELECT min(c) FROM (SELECT count(DISTINCT n) c FROM notes WHERE writer <> 'seed' GROUP BY writer)").Scan(&least); err != nil {
		t.Fatal(err)
	}
	if least != writesPerWriter {
		t.Errorf("some writer has %d different rows; want %d", least, writesPerWriter)
	}
	var verdict string
	if err := db.Reads().QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity_check: %s, %v; want ok", verdict, err)
	}
}

func TestFolderThatCannotBeWrittenToIsNamed(t *testing.T) {
	// Root may write everywhere, so the process that opens runs as nobody.
	dir := t.TempDir()
	path := filepath.Join(dir, "closed", "notes.db")
	if err := os.Mkdir(filepath.Dir(path), 0o555); err != nil {
		t.Fatal(err)
	}
	binary := os.Args[0]
	cmd := exec.CommandContext(t.Context(), binary)
	if os.Getuid() == 0 {
		binary = filepath.Join(dir, "test")
		content, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{
			os.WriteFile(binary, content, 0o755),
			os.Chmod(binary, 0o755), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		cmd = exec.CommandContext(t.Context(), binary)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}}
	}
	cmd.Env = append(os.Environ(), "SQLITE_TEST_PART=open")
	cmd.Stdin = strings.NewReader(path + "\n")
	output, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(output), filepath.Dir(path)) || !strings.Contains(string(output), "can't be written to") {
		t.Errorf("open in a folder without write permission: %v: %s", err, output)
	}
	if lines := bytes.Count(output, []byte("\n")); lines != 1 {
		t.Errorf("%d lines; want 1: %s", lines, output)
	}
}
