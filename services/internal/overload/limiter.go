package overload

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// Limiter limits the requests of one server. Use New.
type Limiter struct {
	cfg    Config
	limits map[Kind]*limit // never changed
}

// New returns a limiter. An error names the setting that is wrong.
func New(cfg Config) (*Limiter, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	return &Limiter{cfg: cfg, limits: map[Kind]*limit{Read: newLimit(cfg), Write: newLimit(cfg)}}, nil
}

// Now returns how many requests of the kind may be at work at once, and how
// many are.
func (l *Limiter) Now(kind Kind) (limit, atWork int) { return l.limits[kind].now() }

// Handler serves what is within the limit, and answers the rest 503 without
// looking at it. A request's body is read before the request is at work, so that
// a client that sends slowly takes no place from others; next reads it from
// memory.
func (l *Limiter) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := kindOf(r.Method)
		limit := l.limits[kind]
		var body io.ReadCloser
		if r.Body != nil && r.Body != http.NoBody {
			ok, changed := limit.wouldAdmit(time.Now())
			l.tell(kind, limit, changed)
			if !ok {
				l.cfg.Shed(kind)
				shedUnread(w, r, l.cfg.MaxBody)
				return
			}
			body = readAhead(r, l.cfg.MaxBody)
		}
		ctx, done, ok := l.Admit(r.Context(), kind)
		if !ok {
			problem.Write(w, r, shed())
			return
		}
		defer done()
		in := r.WithContext(ctx)
		if body != nil {
			in.Body = body
		}
		defer func() { r.Pattern = in.Pattern }() // for those outside who name the route
		next.ServeHTTP(w, in)
	})
}

// Admit lets a request of the kind in, whatever its protocol, or sheds it: ok is
// false then, and it must be answered without any work. Else it is at work until
// done is called, and goes on with the context in, which is for Outside and Away.
// All of it should be there by now: what is waited for here counts as latency.
func (l *Limiter) Admit(ctx context.Context, kind Kind) (in context.Context, done func(), ok bool) {
	limit, began := l.limits[kind], time.Now()
	era, ok, changed := limit.admit(began)
	l.tell(kind, limit, changed)
	if !ok {
		l.cfg.Shed(kind)
		return ctx, nil, false
	}
	p := &place{limit: limit}
	return context.WithValue(ctx, placeKey{}, p), func() {
		now := time.Now()
		l.tell(kind, limit, p.end(now, era, now.Sub(began)))
	}, true
}

func (l *Limiter) tell(kind Kind, limit *limit, changed bool) {
	if changed {
		l.cfg.Changed(kind, limit.over())
	}
}

func (l *limit) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phase != open
}

func kindOf(method string) Kind {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return Read
	}
	return Write
}

func shed() *problem.Problem {
	p := problem.Unavailable(nil, "too much is being worked on; another instance may have time, or this one in a second")
	p.Header = http.Header{httpmesh.ReasonHeader: {httpmesh.ReasonOverload}}
	return p
}

// place is one request at work; it travels in the request's context.
type place struct {
	limit *limit

	mu      sync.Mutex // guards what follows
	outside int        // calls to others under way
	left    time.Time  // when the first of them began
	away    time.Duration
	ended   bool
}

type placeKey struct{}

func (p *place) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outside++; p.outside == 1 && !p.ended {
		p.left = time.Now()
		p.limit.leave()
	}
}

func (p *place) back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outside--; p.outside == 0 && !p.ended {
		p.away += time.Since(p.left)
		p.limit.back()
	}
}

// end gives the place up. Calls to others that outlive the request change
// nothing any more.
func (p *place) end(now time.Time, era uint64, latency time.Duration) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if p.outside > 0 {
		p.away += now.Sub(p.left)
		p.limit.back()
	}
	return p.limit.done(now, era, latency-p.away)
}

// Outside returns a RoundTripper for calls to other services. A request that
// waits there for the header of an answer gives up its place meanwhile, and
// that time is not counted as its latency: that another service is slow does
// not mean that we have too much to do.
func Outside(next http.RoundTripper) http.RoundTripper { return outside{next} }

type outside struct{ next http.RoundTripper }

func (o outside) RoundTrip(r *http.Request) (*http.Response, error) {
	defer Away(r.Context())()
	return o.next.RoundTrip(r)
}

// Away is Outside for a call of any protocol: the request of ctx, if a Limiter has
// let it in, waits for another service until back is called.
func Away(ctx context.Context) (back func()) {
	p, ok := ctx.Value(placeKey{}).(*place)
	if !ok {
		return func() {}
	}
	p.leave()
	return p.back
}
