// Package before serves and calls profilesvc and addsvc by go-kit's own parts for
// Consul. Package after does the same by rollcall; docs/how-to/move-from-go-kit.md
// shows the difference.
package before
