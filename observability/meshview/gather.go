package meshview

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/pause"
)

const (
	watchedEvery = time.Second      // between two rounds of questions while somebody looks
	restEvery    = 10 * time.Second // while nobody does
	pictureEvery = 500 * time.Millisecond
	firstAnswer  = time.Second // that the first picture waits for
	// lostAfter is how long trouble with Consul lasts before the page says so: a held
	// question may be cut off by what lies between.
	lostAfter = 2 * time.Second
)

// gathering is what one run of the gatherer knows. It ends when nobody has looked for
// a while, and all of it is forgotten but the timeline.
type gathering struct {
	view    *View
	reports *reports
	changed chan struct{} // has room for one; something is to be shown
	asked   chan struct{} // has room for one; the processes are to be asked now

	mu      sync.Mutex // guards what follows
	entries map[string][]catalog.Entry
	known   bool // there was an answer of Consul
	trouble error
	since   time.Time // when the trouble began, or the good times did

	// What follows is run's goroutine's.
	lost   bool                 // the trouble counts
	came   map[string]time.Time // when each instance was first seen, by its key; zero: at the start
	based  bool                 // there was a picture with all that Consul knows
	routes []string             // nil: none were told of so far
}

var errNoAnswer = errors.New("no answer so far")

func newGathering(v *View) *gathering {
	return &gathering{
		view: v, reports: newReports(v.transport), changed: make(chan struct{}, 1), asked: make(chan struct{}, 1),
		came: map[string]time.Time{}, trouble: errNoAnswer, since: time.Now(), lost: true,
	}
}

// run gathers until ctx ends, or nobody looks any more.
func (g *gathering) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	working.Go(func() {
		// It ends with ctx, or at once with a mesh that has no Consul or is closed.
		if err := g.view.cfg.Mesh.FollowCatalog(ctx, g.heard); ctx.Err() == nil {
			g.heard(nil, err)
		}
	})
	working.Go(func() {
		defer cancel()
		g.ask(ctx)
	})
	if pause.For(ctx, firstAnswer, g.changed) != nil {
		return
	}
	var last *Picture
	for {
		p, based := g.compose(time.Now())
		g.view.publish(g, last, p, g.routesNow(p.At))
		if based {
			last = p
		}
		if pause.For(ctx, pictureEvery, nil) != nil {
			return
		}
		select {
		case <-g.changed:
		case <-ctx.Done():
			return
		}
	}
}

// routesNow tells which routes came and went since it was called last.
func (g *gathering) routesNow(now time.Time) []Event {
	if g.view.cfg.Routes == nil {
		return nil
	}
	before, first := g.routes, g.routes == nil
	if g.routes = append([]string{}, g.view.cfg.Routes()...); first {
		return nil
	}
	return routes(before, g.routes, now)
}

// heard takes what Consul has told, or that it does not.
func (g *gathering) heard(all map[string][]catalog.Entry, err error) {
	g.mu.Lock()
	if err == nil {
		g.entries, g.known = all, true
	}
	if (err == nil) != (g.trouble == nil) {
		g.since = time.Now()
	}
	g.trouble = err
	g.mu.Unlock()
	signal(g.changed)
	signal(g.asked) // who has come is asked at once
}

// ask asks the processes, again and again, until nobody looks any more.
func (g *gathering) ask(ctx context.Context) {
	for !g.view.rests() {
		began := time.Now()
		if addrs := g.addrs(); len(addrs) > 0 {
			g.reports.round(ctx, addrs, func() { signal(g.changed) })
			signal(g.changed)
		}
		every := restEvery
		if g.view.watched() {
			every = watchedEvery
		}
		if pause.For(ctx, every-time.Since(began), g.asked) != nil || pause.For(ctx, pictureEvery-time.Since(began), nil) != nil {
			return
		}
	}
}

// addrs returns where processes give their status, each once.
func (g *gathering) addrs() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var addrs []string
	left := maxInstances
	for _, service := range slices.Sorted(maps.Keys(g.entries)) {
		entries := g.entries[service]
		entries = entries[:min(len(entries), left)]
		left -= len(entries)
		for _, e := range entries {
			if addr, _ := adminOf(e.Instance); addr != "" {
				addrs = append(addrs, addr)
			}
		}
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// consul returns how it stands with Consul, and all that it has told.
func (g *gathering) consul(now time.Time) (Consul, map[string][]catalog.Entry, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := Consul{Reachable: true, Since: g.since, UI: g.view.cfg.ConsulUI, Prometheus: g.view.cfg.Prometheus}
	if g.trouble == nil {
		g.lost = false
	} else if g.lost || now.Sub(g.since) >= lostAfter {
		g.lost, c.Reachable, c.Error = true, false, bounded(g.trouble.Error())
	}
	return c, g.entries, g.known
}

// compose makes a picture of what is known; based says that Consul's word is in it.
func (g *gathering) compose(now time.Time) (p *Picture, based bool) {
	consul, entries, known := g.consul(now)
	d := newDrawing(now, g.reports)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		d.service(name, entries[name])
	}
	d.tell()
	p = &Picture{At: now, Consul: consul, Services: d.finish(), Edges: d.calls()}
	g.mark(p, now)
	g.based = g.based || known
	return p, known
}

// mark marks those that have come a short while ago, and remembers when all came.
func (g *gathering) mark(p *Picture, now time.Time) {
	const newFor = 10 * time.Second
	there := make(map[string]time.Time, len(g.came))
	for _, s := range p.Services {
		for n := range s.Instances {
			i := &s.Instances[n]
			at, known := g.came[i.Key]
			if !known && g.based {
				at = now
			}
			there[i.Key], i.New = at, now.Sub(at) < newFor
		}
	}
	g.came = there
}
