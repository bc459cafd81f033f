package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/pause"
)

// store keeps the last set of each service in a folder, one file for each. One
// goroutine writes; a file is replaced as a whole or not at all. Services
// without an instance have no file, so names from requests cost none.
type store struct {
	dir    string
	maxAge time.Duration
	log    *slog.Logger
	wake   chan struct{} // has room for one
	broken bool          // the last write failed and was told of; the writer's own

	mu      sync.Mutex         // guards what follows
	pending map[string]*record // to be written
}

const (
	// saveDelay is the time in which changes are gathered for one write.
	saveDelay = time.Second
	// saveEvery is how much later the last proof must be than that in the file
	// for the file to be written without a change.
	saveEvery = time.Minute
	// maxFile bounds a file, in bytes. An instance takes some 300.
	maxFile = 32 << 20

	fileSuffix = ".json"
	tempPrefix = ".writing-"
	// tempOld is the age at which a file is no longer being written: the process
	// that began it has died.
	tempOld = time.Minute
)

// openStore makes the folder, if it is not there, and makes sure that it is ours
// and can be written to.
func openStore(dir string, maxAge time.Duration, log *slog.Logger) (*store, error) {
	bad := func(err error) (*store, error) {
		return nil, fmt.Errorf("watch: Dir is %q; want a folder that can be written to: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return bad(err)
	}
	if err := checkFolder(dir); err != nil {
		return bad(err)
	}
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return bad(err)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return bad(err)
	}
	s := &store{dir: dir, maxAge: maxAge, log: log, wake: make(chan struct{}, 1), pending: map[string]*record{}}
	s.sweep()
	return s, nil
}

// checkFolder says why what lies in the folder can't be trusted: it decides where
// our requests go. What is above the folder is not looked at.
func checkFolder(dir string) error {
	link, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	folder, err := os.Stat(dir)
	if err != nil {
		return err
	}
	for _, info := range []os.FileInfo{link, folder} {
		if err := checkOwner(info); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what processes that died left half-written.
func (s *store) sweep() {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return // the next write tells
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), tempPrefix) && time.Since(info.ModTime()) > tempOld {
			_ = os.Remove(filepath.Join(s.dir, e.Name())) // another process may have been faster
		}
	}
}

// put has the record written soon. It does no I/O.
func (s *store) put(r *record) {
	s.mu.Lock()
	s.pending[r.service] = r
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes what is put until ctx ends, and once more then.
func (s *store) run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
			_ = pause.For(ctx, saveDelay, nil) // cut short, it writes at once
			s.flush()
		case <-ctx.Done():
			s.flush()
			return
		}
	}
}

func (s *store) flush() {
	s.mu.Lock()
	pending := s.pending
	s.pending = map[string]*record{}
	s.mu.Unlock()
	for _, r := range pending {
		switch err := s.write(r); {
		case err != nil && !s.broken:
			s.broken = true
			s.log.Warn("snapshots can't be written to disk: a start without Consul will find older ones", "service", r.service, "error", err)
		case err == nil && s.broken:
			s.broken = false
			s.log.Info("snapshots can be written to disk again", "service", r.service)
		}
	}
}

func (s *store) path(service string) string { return filepath.Join(s.dir, service+fileSuffix) }

// write replaces the service's file: a new one is made beside it, brought to
// the disk and renamed, so that a crash at any time leaves the old one or the
// new one.
func (s *store) write(r *record) error {
	if len(r.set) == 0 {
		if err := os.Remove(s.path(r.service)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := r.encode()
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("the set of %s takes %d bytes; want at most %d", r.service, len(data), maxFile)
	}
	f, err := os.CreateTemp(s.dir, tempPrefix) // with permissions 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path(r.service))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	// The new name is on the disk when the folder is. Not every system can do
	// that, and where it can't, a crash leaves the old file.
	if d, err := os.Open(s.dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}

// load reads the service's file. The error wraps os.ErrNotExist if there is
// none, and else says why it can't be used.
func (s *store) load(service string, now time.Time) (*record, error) {
	bad := func(format string, args ...any) (*record, error) {
		return nil, fmt.Errorf("%s: %w", s.path(service), fmt.Errorf(format, args...))
	}
	link, err := os.Lstat(s.path(service))
	switch {
	case err != nil:
		return nil, err
	case link.Mode()&os.ModeSymlink != 0:
		return bad("is a symbolic link; want a file")
	}
	if err := checkFolder(s.dir); err != nil {
		return nil, fmt.Errorf("%s: %w", s.dir, err)
	}
	f, err := os.OpenFile(s.path(service), os.O_RDONLY|openSafely, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return bad("is no file")
	}
	// The open file is judged, so that it is the one that is read.
	if err := checkOwner(info); err != nil {
		return bad("%w", err)
	}
	if info.Size() > maxFile {
		return bad("is %d bytes; want at most %d", info.Size(), maxFile)
	}
	r, err := decodeRecord(service, f, now)
	if err != nil {
		return bad("%w", err)
	}
	if age := now.Sub(r.proven); age > s.maxAge {
		return bad("was proven %s ago; want at most %s", age.Round(time.Second), s.maxAge)
	}
	return r, nil
}

// record is what a file holds. Its set is shared and never changed.
type record struct {
	service string
	set     []catalog.Instance
	since   time.Time // when the set came to be
	proven  time.Time // when it was last proven
}
