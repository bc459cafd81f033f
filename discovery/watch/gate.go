package watch

import (
	"context"
	"slices"
	"sync"
	"time"
)

// gate lets a limited number of blocking queries in, first come first served.
// When Consul refuses a connection (429), because others at our address use up
// its limit, the gate narrows to what gets through: else the queries inside would
// keep their connections, and the others would never have one. It widens
// again as time passes without a refusal.
type gate struct {
	mu    sync.Mutex // guards what follows
	most  int
	limit int // 1 to most
	held  int // may be above limit after squeeze
	queue []chan struct{}
	eased time.Time // when limit last changed
}

// easeAfter is the time without a refusal after which the gate widens by one.
const easeAfter = 10 * time.Second

func newGate(most int) *gate { return &gate{most: most, limit: most} }

// enter waits for a place, which the caller must leave, or returns why it
// can't.
func (g *gate) enter(ctx context.Context) error {
	g.mu.Lock()
	ticket := make(chan struct{})
	g.queue = append(g.queue, ticket)
	g.admit()
	g.mu.Unlock()
	select {
	case <-ticket:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := slices.Index(g.queue, ticket)
	if n < 0 {
		return nil // let in at the same time: that wins
	}
	g.queue = slices.Delete(g.queue, n, n+1)
	return context.Cause(ctx)
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held--
	g.admit()
}

// squeeze notes that Consul refused a connection.
func (g *gate) squeeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = max(1, min(g.limit, g.held)-1)
	g.eased = time.Now()
}

// width returns how many are let in at present.
func (g *gate) width() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit
}

// admit lets queries in while there are places. The caller holds mu.
func (g *gate) admit() {
	if g.limit < g.most && time.Since(g.eased) >= easeAfter {
		g.limit++
		g.eased = time.Now()
	}
	for g.held < g.limit && len(g.queue) > 0 {
		g.held++
		close(g.queue[0])
		g.queue = slices.Delete(g.queue, 0, 1)
	}
}
