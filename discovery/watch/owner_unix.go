//go:build unix

package watch

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openSafely are the flags with which a file is opened that may be anything: no
// symbolic link is followed, and no pipe is waited for.
const openSafely = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// checkOwner says why a file or a folder is not ours: its user is neither this
// process's nor root, or others may write to it. A folder with the
// sticky bit is ours even so: others can't replace what we put there.
func checkOwner(info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("has no known owner (mode %v)", info.Mode())
	}
	self := os.Geteuid()
	mine := stat.Uid == 0 || int64(stat.Uid) == int64(self)
	closed := info.Mode().Perm()&0o022 == 0 || info.IsDir() && info.Mode()&fs.ModeSticky != 0
	if info.Mode()&fs.ModeSymlink != 0 {
		closed = true // a link's permissions mean nothing
	}
	if mine && closed {
		return nil
	}
	want := "no write permission for group and others"
	if info.IsDir() {
		want += ", or the sticky bit"
	}
	return fmt.Errorf("belongs to uid %d with permissions %v; want uid %d or 0, and %s", stat.Uid, info.Mode(), self, want)
}
