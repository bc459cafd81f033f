// Package meshview serves the mesh as a live page: which services there are, who calls
// whom, how each instance is, and what has happened.
//
//	view, err := meshview.New(meshview.Config{Mesh: mesh, Log: log})
//	mux.Handle("/mesh/", view)
//
// Membership and checks come from Consul as they change. The rest comes from the
// processes themselves: an entry whose Meta has rollcall_admin, a port, is asked there
// for /debug/discovery. All that is gathered once for all viewers, and bounded.
//
// Nothing runs before somebody looks. While somebody does, each process is asked once a
// second, 16 at a time; from the last look on for ten more minutes, every ten seconds,
// so that the timeline goes on; then nothing runs again. No request of the mesh waits
// for any of it.
//
// What is served tells addresses and troubles of all services: serve it where operators
// are, and nobody else. Texts are of strangers: the page shows them as text.
//
// A View is safe for any number of goroutines. Tests run it in a bubble of
// testing/synctest with discovery/consultest.
package meshview

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// Mesh is what the page looks at. A *discovery.Mesh is one.
type Mesh interface {
	Status() discovery.Status
	FollowCatalog(ctx context.Context, told func(all map[string][]catalog.Entry, err error)) error
}

// Config says what the page shows. Mesh and Log are required.
type Config struct {
	// Mesh to look at.
	Mesh Mesh
	// Log gets what goes wrong with the page itself.
	Log *slog.Logger
	// Viewers is how many live pages there may be at a time; the next is answered 503.
	// 0 means 32. More cost a connection each, and the sending of a picture each second.
	Viewers int
	// Linger is how long the gathering goes on after the last look, for the timeline. 0
	// means 10m. Longer keeps more of what happened while nobody looked.
	Linger time.Duration
	// Route says where a request to a host and path goes, for questions about a path. nil
	// means that only services can be asked about.
	Route func(host, path string) (Route, bool)
	// Routes lists all routes, a line each, for the timeline. nil means none.
	Routes func() []string
	// Try sends the GET of POST /mesh/try, which shows a real choice. nil means that
	// there is no such path: all else on the page sends nothing.
	Try http.RoundTripper
	// ConsulUI and Prometheus are URLs at which people find them, for links: a service is
	// at /services/NAME/instances under the one, as http://localhost:8500/ui/dc1 has it,
	// and at /consoles/service.html?service=NAME under the other. Empty means no link.
	ConsulUI, Prometheus string
	// Transport asks the processes. nil means one of the view's own.
	Transport http.RoundTripper
}

// Route is where a request goes.
type Route struct {
	Service string
	Path    string // that the service gets
	Rule    string // by which it goes there
}

// View serves the page, below /mesh/. Use New.
type View struct {
	cfg       Config
	handler   http.Handler
	transport http.RoundTripper
	closeIdle func()
	ctx       context.Context //nolint:containedctx // of the gatherer and of all streams; Close ends it
	cancel    context.CancelFunc
	current   atomic.Pointer[published]
	timeline  timeline

	mu       sync.Mutex     // guards what follows
	working  sync.WaitGroup // the gatherer and the streams
	closed   bool
	viewers  int
	looked   time.Time  // the last time
	gathered *gathering // nil: nothing runs
	pictures uint64
}

// published is a picture that was published.
type published struct {
	picture *Picture      // nil: there is none so far
	text    func() []byte // in JSON; made when the first viewer wants it
	next    chan struct{} // closed when there is another one
}

// New returns a view. An error names the setting that is wrong.
func New(cfg Config) (*View, error) {
	switch {
	case cfg.Mesh == nil:
		return nil, errors.New("meshview: Mesh is nil; want one to look at")
	case cfg.Log == nil:
		return nil, errors.New("meshview: Log is nil; want a logger")
	case cfg.Viewers < 0:
		return nil, fmt.Errorf("meshview: Viewers is %d; want more than 0, or 0 for 32", cfg.Viewers)
	case cfg.Linger < 0:
		return nil, fmt.Errorf("meshview: Linger is %v; want more than 0, or 0 for 10m", cfg.Linger)
	}
	for _, link := range []struct{ field, value string }{{"ConsulUI", cfg.ConsulUI}, {"Prometheus", cfg.Prometheus}} {
		if link.value == "" {
			continue
		}
		if u, err := url.Parse(link.value); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("meshview: %s is %q; want a URL of http or https without a query", link.field, bounded(link.value))
		}
	}
	cfg.Viewers, cfg.Linger = cmp.Or(cfg.Viewers, 32), cmp.Or(cfg.Linger, 10*time.Minute)
	v := &View{cfg: cfg, transport: cfg.Transport, closeIdle: func() {}}
	if v.transport == nil {
		own := &http.Transport{ // no proxy: these are addresses of the mesh
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     2 * restEvery,
			DisableCompression:  true,
		}
		v.transport, v.closeIdle = own, own.CloseIdleConnections
	}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	// The numbers of a later process are higher, so that whoever comes back to it with
	// the number of an event gets what happened since.
	first := uint64(max(time.Now().UnixMicro(), 0))
	v.pictures, v.timeline.last = first, first
	v.current.Store(nothing())
	v.handler = v.routesOf()
	return v, nil
}

// routesOf returns the handler of all paths.
func (v *View) routesOf() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mesh/{$}", v.servePage)
	mux.HandleFunc("GET /mesh/assets/{name}", serveAsset)
	mux.HandleFunc("GET /mesh/picture", v.servePicture)
	mux.HandleFunc("GET /mesh/events", v.serveEvents)
	mux.HandleFunc("GET /mesh/stream", v.serveStream)
	mux.HandleFunc("GET /mesh/ask", v.serveAsk)
	if v.cfg.Try != nil {
		mux.Handle("POST /mesh/try", sameOrigin(http.HandlerFunc(v.serveTry)))
	}
	return problem.Router(mux)
}

// ServeHTTP serves /mesh/ and what is below.
func (v *View) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	v.handler.ServeHTTP(w, r)
}

// Close ends the gathering and all streams, and waits for them. It may be called twice.
func (v *View) Close() error {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.cancel()
	v.working.Wait()
	v.closeIdle()
	return nil
}

// look notes that somebody looks, and begins the gathering if it does not run.
func (v *View) look() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.looked = time.Now()
	if v.gathered != nil {
		signal(v.gathered.asked)
		return
	}
	g := newGathering(v)
	v.gathered = g
	v.working.Go(func() { g.run(v.ctx) })
}

// watched reports whether somebody looks.
func (v *View) watched() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.viewers > 0 || time.Since(v.looked) < restEvery
}

// rests ends the gathering if nobody has looked for a while, and reports whether it has.
func (v *View) rests() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.viewers > 0 || time.Since(v.looked) < v.cfg.Linger {
		return false
	}
	v.gathered = nil
	close(v.current.Swap(nothing()).next)
	return true
}

func nothing() *published { return &published{next: make(chan struct{})} }

// publish makes p the picture that viewers have, and tells what happened since the one
// before; nil: there is none to compare it with.
func (v *View) publish(g *gathering, before, p *Picture, more []Event) {
	events := append(diff(before, p), more...)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gathered != g {
		return
	}
	v.pictures++
	p.Seq, p.Viewers = v.pictures, v.viewers
	v.timeline.add(events) // first, so that no viewer has the picture without them
	next := nothing()
	next.picture, next.text = p, sync.OnceValue(func() []byte { return v.json(p) })
	close(v.current.Swap(next).next)
}

// json returns a value as it is sent.
func (v *View) json(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		v.cfg.Log.Error("the page's data can't be written", "error", err)
		return []byte("null")
	}
	return text
}

// latest returns the latest picture, for which it waits a moment at the start; empty if
// there is none.
func (v *View) latest() *Picture {
	v.look()
	now := v.current.Load()
	if now.picture == nil {
		timer := time.NewTimer(firstAnswer + pictureEvery)
		defer timer.Stop()
		select {
		case <-now.next:
		case <-timer.C:
		case <-v.ctx.Done():
		}
		now = v.current.Load()
	}
	if now.picture == nil {
		return &Picture{At: time.Now(), Consul: Consul{Error: errNoAnswer.Error()}, Services: []Service{}, Edges: []Edge{}}
	}
	return now.picture
}

// events returns what happened after the event with that number, as far as it is kept.
func (v *View) events(after uint64) []Event { return v.timeline.after(after) }
