package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/services/gateway/routing"
	"github.com/rollcall-mesh/rollcall/services/gateway/split"
)

// ServedByHeader of an answer holds the ID of the instance that gave it.
const ServedByHeader = "X-Served-By"

// Route sends what lies under a path to a service.
type Route = routing.Route

// Config is what a Gateway is made of.
type Config struct {
	// Transport sends to services by their names, as a mesh's RoundTripper
	// does. Required.
	Transport http.RoundTripper
	// AnswerTimeout is how long a service may take from the last piece of the
	// request to the header of its answer, all tries together. 0 means 10s. A call
	// of gRPC has the time that it says instead, to its end; without it any.
	AnswerTimeout time.Duration
	// Learned returns the routes that services claim, of which those that Handler
	// is given get nothing. nil means that there are none.
	Learned func() *routing.Table
	// Splits returns which instances requests would rather have. nil means that
	// there are no such rules.
	Splits func() *split.Splits
	// Proxies are trusted: what they say of a request's client, in the headers that
	// ProxyHeaders names, is believed and goes on. nil means that no one is.
	Proxies []netip.Prefix
	// ProxyHeaders are those that the Proxies write: XForwarded or Forwarded. The
	// others may be what a client has made up. Empty means XForwarded.
	ProxyHeaders string
	// Log gets what went wrong with a service. Required.
	Log *slog.Logger
}

// Gateway proxies requests. Use New.
type Gateway struct {
	proxy         *httputil.ReverseProxy
	answerTimeout time.Duration
	learned       func() *routing.Table
	splits        func() *split.Splits
	edge          edge
	log           *slog.Logger
}

// New returns a gateway. An error names the setting that is wrong.
func New(cfg Config) (*Gateway, error) {
	switch {
	case cfg.Transport == nil:
		return nil, errors.New("gateway: Transport is nil; want one that sends to services by their names")
	case cfg.Log == nil:
		return nil, errors.New("gateway: Log is nil; want a logger")
	case cfg.AnswerTimeout < 0:
		return nil, fmt.Errorf("gateway: AnswerTimeout is %v; want more than 0, or 0 for 10s", cfg.AnswerTimeout)
	case cfg.ProxyHeaders != "" && cfg.ProxyHeaders != XForwarded && cfg.ProxyHeaders != Forwarded:
		return nil, fmt.Errorf("gateway: ProxyHeaders is %q; want %s or %s", cfg.ProxyHeaders, XForwarded, Forwarded)
	}
	if cfg.Splits == nil {
		cfg.Splits = func() *split.Splits { return nil }
	}
	if cfg.Learned == nil {
		cfg.Learned = func() *routing.Table { return nil }
	}
	if cfg.AnswerTimeout == 0 {
		cfg.AnswerTimeout = 10 * time.Second
	}
	g := &Gateway{
		answerTimeout: cfg.AnswerTimeout, learned: cfg.Learned, splits: cfg.Splits, log: cfg.Log,
		edge: edge{proxies: cfg.Proxies, rfc7239: cfg.ProxyHeaders == Forwarded},
	}
	g.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      cfg.Transport,
		ModifyResponse: answered,
		ErrorHandler:   g.failed,
		FlushInterval:  flushInterval,
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return g, nil
}

// Learned is the pattern that logs and metrics have for every learned route: there may
// be any number of these in the life of a process.
const Learned = "learned"

// Handler returns a handler that serves these routes, lists them at / if none has that,
// and answers 404 to any other path. Paths are matched as they came and never cleaned: what the service behind makes
// of "//" or ".." is its own business, and a redirect would cost a POST its body.
func (g *Gateway) Handler(routes ...Route) http.Handler {
	return g.handler(routing.NewTable(routes...), func() *routing.Table { return nil })
}

// Door is Handler, and serves the routes that are learned as well.
func (g *Gateway) Door(routes ...Route) http.Handler {
	return g.handler(routing.NewTable(routes...), g.learned)
}

func (g *Gateway) handler(pinned *routing.Table, learned func() *routing.Table) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.EscapedPath()
		x := &exchange{pinned: pinned, learned: learned()}
		var ok bool
		if x.route, ok = pinned.Find(r.Host, path); ok {
			r.Pattern = x.route.Key() // for logs and metrics, as http.ServeMux would say it
			if !strings.HasSuffix(r.Pattern, "/") {
				r.Pattern += "/"
			}
		} else if x.route, ok = x.learned.Find(r.Host, path); ok {
			r.Pattern = Learned
		} else if isIndex(r) {
			r.Pattern = "/"
			writeIndex(w, r, pinned, x.learned)
			return
		} else {
			problem.Write(w, r, problem.New(http.StatusNotFound, "nothing is at %s", path))
			return
		}
		g.forward(w, r, x)
	})
}

// exchange is one request under way; it travels in the request's context.
type exchange struct {
	route   Route
	pinned  *routing.Table
	learned *routing.Table
	client  client // who asks
	service string
	grpc    bool // it is a call of gRPC
	report  httpmesh.Report
	clock   *answerClock
	body    *watchedBody         // nil if there is none
	kept    func() io.ReadCloser // the body that was read before it is sent on; nil: it is not
	length  int64                // of the answer's body; 0: none or no answer, -1: not known
	upgrade string               // the protocol that was asked for; empty: none
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// forward sends the request to the service and the answer back.
func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, x *exchange) {
	// Else net/http reads the whole request before it sends the first piece of
	// an answer. Connections other than HTTP/1.1's are full-duplex anyway.
	_ = http.NewResponseController(w).EnableFullDuplex()

	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	x.service, x.client, x.clock = x.route.Service, g.edge.of(r), newAnswerClock(g.answerTimeout, cancel)
	defer x.clock.stop()
	if x.grpc = grpcwire.Is(r.Header); x.grpc {
		x.clock.stop() // a stream answers when it has something to say
		if limit, ok := grpcwire.Timeout(r.Header); ok {
			timer := time.AfterFunc(limit, func() { cancel(errNoAnswer) })
			defer timer.Stop()
		}
	}
	ctx = context.WithValue(ctx, exchangeKey{}, x)
	if prefer := g.splits().Steer(x.service, r); prefer != nil {
		ctx = httpmesh.WithPreference(ctx, prefer)
	}
	out := r.WithContext(httpmesh.WithReport(ctx, &x.report))
	out.Header = withoutH2C(r.Header)
	dropOurs(out.Trailer)
	answer := &answerWriter{ResponseWriter: w, x: x}
	if r.Body != nil && r.Body != http.NoBody {
		x.body = &watchedBody{ReadCloser: r.Body, clock: x.clock, trailer: out.Trailer}
		out.Body = x.body
		if r.ProtoMajor == 1 { // another one resets the stream
			answer.body = x.body
		}
		if err := x.keep(out); err != nil {
			g.failed(answer, out, err)
			return
		}
	}
	g.proxy.ServeHTTP(answer, out)
	dropOurs(answer.Header()) // the trailer, which goes out when we return
}

// lasting are the headers that go on even if the client's Connection names them
// as meant for the next hop only (RFC 9110, section 7.6.1, forbids it to): logs
// are joined by the one, and the other keeps an order from being placed twice.
var lasting = [...]string{logging.RequestIDHeader, "Idempotency-Key"}

// rewrite makes the request that goes out of the one that came in.
func rewrite(p *httputil.ProxyRequest) {
	out := p.Out
	x := exchangeOf(out.Context())
	out.URL.Scheme = "http"
	out.URL.Host = x.service
	x.inner(out)
	out.URL.RawQuery = p.In.URL.RawQuery // as it came: the proxy drops what it can't parse
	out.Trailer = p.In.Trailer           // it is filled when the body has ended; the proxy's copy would stay empty
	out.Host = ""                        // the service's name; what the client asked for is in X-Forwarded-Host
	dropOurs(out.Header)
	for name := range out.Header {
		if strings.HasPrefix(name, "X-Forwarded-") {
			delete(out.Header, name)
		}
	}
	for _, name := range lasting {
		if values, ok := p.In.Header[name]; ok {
			out.Header[name] = values
		}
	}
	x.upgrade = out.Header.Get("Upgrade")
	if x.kept != nil {
		out.Body = x.kept() // as http.Transport knows it: it goes out in one packet with the header
	}
	if !x.grpc && !x.streams() { // else the time counts from its last piece on
		out.Header.Set(httpmesh.TimeoutHeader, strconv.FormatInt(max(x.clock.limit.Milliseconds(), 1), 10))
	}
	out.Header.Del(ServedByHeader)
	x.client.tell(out.Header)
	if prefix := x.route.Prefix; x.route.Rewrite != "" && prefix != "/" {
		out.Header.Set("X-Forwarded-Prefix", prefix)
	}
}

// servedBy returns the ID of the instance that answered.
func (x *exchange) servedBy() string {
	i, _ := x.report.Served()
	return i.ID
}
