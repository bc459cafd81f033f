package httpmesh

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// elsewhere says what to do about a host that is no service's name.
const elsewhere = "for a host outside the mesh list it in Config.Outside, or use a client of net/http"

// notService says why a URL's host can't be the name of a service: empty if it
// can.
func notService(host string) string {
	name, port := splitPort(host)
	switch {
	case host == "":
		return "has no host; want the name of a service"
	case net.ParseIP(strings.Trim(name, "[]")) != nil:
		return fmt.Sprintf("has host %q, which is an address; want the name of a service; %s", host, elsewhere)
	case strings.EqualFold(name, "localhost"):
		return fmt.Sprintf("has host %q; want the name of a service, as it is registered; %s", host, elsewhere)
	case strings.Contains(name, "."):
		return fmt.Sprintf("has host %q, which has a dot; want the name of a service; %s", host, elsewhere)
	case port || strings.ContainsAny(name, ":[]"):
		return fmt.Sprintf("has host %q; want the name of a service, without a port: the registry knows its instances' ports", host)
	}
	return ""
}

// splitPort returns a host without its port, and whether there was one.
func splitPort(host string) (name string, port bool) {
	if n := strings.LastIndexByte(host, ':'); n >= 0 && !strings.Contains(host[n:], "]") {
		return host[:n], true
	}
	return host, false
}

// outside is how requests leave the mesh.
type outside struct {
	hosts []string
	pool  *http.Transport
}

func newOutside(hosts []string, n *network) *outside {
	if len(hosts) == 0 {
		return nil
	}
	pool := &http.Transport{}
	if standard, ok := http.DefaultTransport.(*http.Transport); ok {
		pool = standard.Clone()
	}
	pool.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		c, err := n.dial(ctx, addr, nil, false, nil) // so that Close ends what is open
		if err != nil {
			return nil, err
		}
		return c, nil
	}
	o := &outside{pool: pool}
	for _, h := range hosts {
		o.hosts = append(o.hosts, strings.ToLower(h))
	}
	return o
}

// checkOutside says what is wrong with Config.Outside.
func checkOutside(hosts []string) error {
	for n, h := range hosts {
		name := strings.TrimPrefix(h, "*.")
		if h == "*" {
			continue
		}
		if bare, port := splitPort(name); name == "" || port && net.ParseIP(name) == nil || strings.ContainsAny(bare, "/*@[] ") {
			return fmt.Errorf(`httpmesh: Outside[%d] is %q; want a host without a port ("example.com"), "*.example.com", or "*"`, n, h)
		}
	}
	return nil
}

// has reports whether requests for the host leave the mesh. A nil one has none.
func (o *outside) has(host string) bool {
	if o == nil {
		return false
	}
	name, _ := splitPort(host)
	name = strings.ToLower(strings.Trim(name, "[]"))
	for _, h := range o.hosts {
		suffix, under := strings.CutPrefix(h, "*")
		switch {
		case h == name, h == "*" && notService(host) != "" && name != "":
			return true
		case under && suffix != "" && strings.HasSuffix(name, suffix):
			return true
		}
	}
	return false
}

// sendOutside sends the request as net/http does, once. What we say among
// ourselves does not go with it.
func (t *Transport) sendOutside(r *http.Request) (*http.Response, error) {
	if !t.enter() {
		closeBody(r)
		return nil, fmt.Errorf("send to %s: %w", r.URL.Host, catalog.ErrClosed)
	}
	out := *r // a RoundTripper may not change it
	if said := ours(r.Header); len(said) > 0 {
		out.Header = r.Header.Clone()
		for _, name := range said {
			delete(out.Header, name)
		}
	}
	resp, err := t.outside.pool.RoundTrip(&out)
	if err != nil {
		t.leave()
		return nil, err
	}
	resp.Request = r
	resp.Body = counted(resp.Body, t.leave)
	return resp, nil
}

func ours(h http.Header) (names []string) {
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) {
			names = append(names, name)
		}
	}
	return names
}

// headerPrefix is that of all headers that we send to each other.
const headerPrefix = "Rollcall-"

// counted is a body that tells when it is closed; after an upgrade it can be
// written to.
func counted(body io.ReadCloser, leave func()) io.ReadCloser {
	c := &countedBody{ReadCloser: body, leave: leave}
	if w, ok := body.(io.Writer); ok {
		return struct {
			*countedBody
			io.Writer
		}{c, w}
	}
	return c
}

type countedBody struct {
	io.ReadCloser
	leave  func()
	closed atomic.Bool
}

func (b *countedBody) Close() error {
	err := b.ReadCloser.Close()
	if !b.closed.Swap(true) {
		b.leave()
	}
	return err
}
