package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// ErrNoAnswer is the error, wrapped, of a request for a service about which Consul
// has not said anything so far, see Config.InitialFetchTimeout. Unlike
// ErrNoInstance it says nothing about the service.
var ErrNoAnswer = errors.New("no answer so far")

// ErrEnterprise is the error, wrapped, of a Consul that knows no namespaces and no
// partitions, its community edition, when Config.Consul names one.
var ErrEnterprise = consul.ErrEnterprise

// ErrNoDatacenter is the error, wrapped, of a Consul that does not know the
// datacenter that Config.Consul names, or can't reach it.
var ErrNoDatacenter = consul.ErrNoPath

// noticeAfter is how long the first answer about a service may take before the log
// says so.
const noticeAfter = 900 * time.Millisecond

var (
	errTooLong = errors.New("nothing came")
	errAtOnce  = errors.New("not there yet")
)

// atOnce is a context with which a source returns what it has.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errAtOnce)
	return ctx
}()

// initial is Consul's watcher, but that the wait for the first answer about a
// service is bounded, and that trouble with Consul is told with what to do.
type initial struct {
	catalog.Source
	consul  string        // its address
	timeout time.Duration // negative: as long as the context
	log     *slog.Logger
	told    atomic.Bool // of the present trouble
}

// Latest costs a look at what is there once there is something.
func (f *initial) Latest(ctx context.Context, service string) (*catalog.Snapshot, error) {
	s, err := f.Source.Latest(atOnce, service) //nolint:contextcheck // it does not wait
	if !errors.Is(err, errAtOnce) {
		return s, err
	}
	began, most := time.Now(), noticeAfter
	if f.timeout >= 0 {
		most = min(most, f.timeout)
	}
	if s, err = f.within(ctx, service, most); errors.Is(err, errTooLong) {
		f.tell(service, err)
		switch left := f.timeout - most; {
		case f.timeout < 0:
			s, err = f.Source.Latest(ctx, service)
		case left > 0:
			s, err = f.within(ctx, service, left)
		}
	}
	switch {
	case err == nil:
		f.told.Store(false)
		return s, nil
	case errors.Is(err, errTooLong), ctx.Err() != nil:
		return nil, fmt.Errorf("discovery: %w from Consul at %s within %s: %w; %s",
			ErrNoAnswer, f.consul, time.Since(began).Round(time.Millisecond), err, advice(err))
	}
	return nil, err
}

func (f *initial) within(ctx context.Context, service string, most time.Duration) (*catalog.Snapshot, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, most, errTooLong)
	defer cancel()
	return f.Source.Latest(ctx, service)
}

// tell logs trouble with Consul once, until it is over: 100 services that are
// followed have the same.
func (f *initial) tell(service string, err error) {
	if !f.told.Swap(true) {
		f.log.Warn("no usable answer from Consul", "consul", f.consul, "service", service, "error", err, "do", advice(err))
	}
}

// trace returns the trace with a line in the log when trouble with Consul begins.
func (f *initial) trace(trace *watch.Trace) *watch.Trace {
	var told watch.Trace
	if trace != nil {
		told = *trace
	}
	failed, recovered := told.Failed, told.Recovered
	told.Failed = func(service string, err error) {
		f.tell(service, err)
		if failed != nil {
			failed(service, err)
		}
	}
	told.Recovered = func(service string) {
		f.told.Store(false)
		if recovered != nil {
			recovered(service)
		}
	}
	return &told
}

// advice says what to do about trouble with Consul.
func advice(err error) string {
	const elsewhere = "set Config.Consul.Address or CONSUL_HTTP_ADDR"
	text := err.Error()
	switch code := consul.StatusCode(err); {
	case errors.Is(err, ErrEnterprise):
		return "leave Config.Consul.Namespace and Partition empty, and CONSUL_NAMESPACE and CONSUL_PARTITION, or use Consul Enterprise"
	case strings.Contains(text, "boolean expression evaluator"):
		return "correct the filter's expression"
	case errors.Is(err, ErrNoDatacenter):
		return "see that the name is right and that its servers are joined: consul members -wan"
	case consul.Denied(err), strings.Contains(text, "token"):
		return "give it a token with service:read and node:read: Config.Consul.Token, TokenFile or CONSUL_HTTP_TOKEN"
	case strings.Contains(text, "leader"):
		return "see why its servers have no leader: consul operator raft list-peers"
	case strings.Contains(text, "HTTP response to HTTPS client"):
		return "use http in place of https in the address"
	case strings.Contains(text, "HTTP request to an HTTPS server"):
		return "use https in place of http in the address"
	case strings.Contains(text, "remote error: tls: ") && strings.Contains(text, "certificate"):
		return "give it a certificate that Consul's CA has signed and that has not ended: Config.Consul.CertFile and KeyFile, or CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"):
		return "set Config.Consul.CAFile and ServerName, or CONSUL_CACERT and CONSUL_TLS_SERVER_NAME"
	case code == http.StatusTooManyRequests:
		return "raise Consul's limits.http_max_conns_per_client, or watch fewer services"
	case code >= http.StatusInternalServerError:
		return "look into Consul's log"
	default:
		return "see that Consul runs there and that this is its HTTP port, or " + elsewhere
	}
}
