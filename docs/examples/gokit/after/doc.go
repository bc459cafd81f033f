// Package after serves and calls profilesvc and addsvc by rollcall. Package before
// does the same by go-kit's own parts; docs/how-to/move-from-go-kit.md shows the
// difference.
package after
