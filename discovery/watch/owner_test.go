//go:build unix

package watch

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// chown gives the file to another user, which only root can do.
func chown(t *testing.T, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	if err := os.Lchown(name, 12345, 12345); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotOnDiskIsBelievedOnlyFromAnOwnerAndAFolderThatAreOurs(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir, file string)
		why   []string // each is in the error; none: it is believed
	}{
		"ours": {func(*testing.T, string, string) {}, nil},
		"the file is another user's": {
			func(t *testing.T, _, file string) { chown(t, file) },
			[]string{"order.json: belongs to uid 12345 with permissions -rw-------", "want uid 0"},
		},
		"the file is open to the group": {
			func(t *testing.T, _, file string) { chmod(t, file, 0o620) },
			[]string{"order.json: belongs to uid ", "-rw--w----", "no write permission for group and others"},
		},
		"the folder has become another user's": {
			func(t *testing.T, dir, _ string) { chown(t, dir) },
			[]string{"belongs to uid 12345 with permissions drwx", "want uid 0"},
		},
		"the folder has become open to all": {
			func(t *testing.T, dir, _ string) { chmod(t, dir, 0o777) },
			[]string{"drwxrwxrwx", "or the sticky bit"},
		},
		"the folder is open to all and sticky": {
			func(t *testing.T, dir, _ string) { chmod(t, dir, 0o777|os.ModeSticky) }, nil,
		},
		"the file is a symbolic link": {
			func(t *testing.T, dir, file string) {
				if err := os.Rename(file, filepath.Join(dir, "elsewhere")); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink("elsewhere", file); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"order.json: is a symbolic link"},
		},
		"the file is a pipe": {
			func(t *testing.T, _, file string) {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
				if err := syscall.Mkfifo(file, 0o600); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"order.json: is no file"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			var lines strings.Builder
			follow(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&lines, nil))}, away, func(t *testing.T, w *Watcher, _ *script) {
				path := filepath.Join(dir, "order.json")
				if err := os.WriteFile(path, []byte(file(t, time.Now())), 0o600); err != nil { // the bubble's time
					t.Fatal(err)
				}
				c.spoil(t, dir, path)
				got := latest(t, w)
				if c.why == nil && got != "a:passing" || c.why != nil && !strings.Contains(got, "connection refused") {
					t.Errorf("got %q; want the set on disk: %v", got, c.why == nil)
				}
			})
			for _, why := range c.why {
				if !strings.Contains(lines.String(), why) {
					t.Errorf("the log lacks %q:\n%s", why, &lines)
				}
			}
		})
	}
}

func TestFolderThatIsNotOursIsAWrongSetting(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		why   string
	}{
		"another user's": {chown, "belongs to uid 12345"},
		"open to all":    {func(t *testing.T, dir string) { chmod(t, dir, 0o777) }, "permissions drwxrwxrwx; want uid "},
		"another user's link": {func(t *testing.T, dir string) {
			if err := os.Rename(dir, dir+"-itself"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(dir+"-itself", dir); err != nil {
				t.Fatal(err)
			}
			chown(t, dir)
		}, "belongs to uid 12345"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, dir)
			w, err := New(Config{Client: (&script{}).client(t), Dir: dir})
			if err == nil {
				w.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "watch: Dir is ") || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v; want an error that says %q", err, c.why)
			}
		})
	}
}
