package web

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// newbornPatience is how long a connection that has sent no request yet may
// hold up a shutdown. A client that dialled sends at once; those that don't are
// spare connections of a pool, and net/http would wait 5 s for each of them.
const newbornPatience = 500 * time.Millisecond

// newborn knows the connections that have sent no request so far. Its zero
// value is ready.
type newborn struct {
	mu    sync.Mutex // guards what follows
	conns map[net.Conn]struct{}
}

// note is an http.Server's ConnState.
func (b *newborn) note(c net.Conn, state http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if state != http.StateNew {
		delete(b.conns, c)
		return
	}
	if b.conns == nil {
		b.conns = map[net.Conn]struct{}{}
	}
	b.conns[c] = struct{}{}
}

// closeSoon closes them after a moment of patience; it returns then, or when
// ctx ends.
func (b *newborn) closeSoon(ctx context.Context) {
	timer := time.NewTimer(newbornPatience)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		_ = c.Close() // nobody has said anything on it
	}
}
