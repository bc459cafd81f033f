package sqlite

import (
	"errors"
	"fmt"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"
)

var (
	// ErrBusy is the error, wrapped, of a statement that waited for another
	// writer for as long as the busy timeout allows.
	ErrBusy = errors.New("the database is busy")
	// ErrFull is the error, wrapped, of a write for which the disk, the quota
	// or the database has no room, or whose disk fails. What is there can
	// still be read; writing works again when there is room.
	ErrFull = errors.New("the database is full")
)

// Classify wraps an error of the driver in ErrBusy or ErrFull if it is one of
// these, and returns any other as it is.
func Classify(err error) error {
	failure, ok := errors.AsType[*driver.Error](err)
	if !ok {
		return err
	}
	// The low byte is the primary code: https://www.sqlite.org/rescode.html.
	switch failure.Code() & 0xff {
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case codes.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	// Out of quota, or a write that the file system took back later, is no
	// SQLITE_FULL.
	switch failure.Code() {
	case codes.SQLITE_IOERR_WRITE, codes.SQLITE_IOERR_FSYNC, codes.SQLITE_IOERR_DIR_FSYNC, codes.SQLITE_IOERR_TRUNCATE,
		codes.SQLITE_IOERR_SHMSIZE:
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
