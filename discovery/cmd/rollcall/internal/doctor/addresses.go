package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// How an address answers.
const (
	asService = "HTTP as their service"
	asHTTP    = "HTTP"
	asTLS     = "TLS"
	asTCP     = "another protocol"
)

// look is what came of a look at an address.
type look struct {
	answers      string // how; empty: it does not, or not as it should
	level        Level
	says, remedy string
}

// lookAtAddresses looks whether each registered address answers, and as what. Those at
// nodes that are dead are left out, as are proxies and gateways of Consul's service
// mesh.
func (x *examination) lookAtAddresses(ctx context.Context) {
	var entries []*api.ServiceEntry
	for _, e := range x.entries {
		if e.Service.Kind == api.ServiceKindTypical && !dead(e) {
			entries = append(entries, e)
		}
	}
	looks := make([]look, len(entries))
	each(len(entries), func(n int) { looks[n] = lookAt(ctx, entries[n]) })
	answers, total := map[string]int{}, 0
	for _, l := range looks {
		if l.answers != "" {
			answers[l.answers]++
			total++
			continue
		}
		x.found(l.level, checkAddresses, l.remedy, "%s", l.says)
	}
	if total > 0 {
		var kinds []string
		for _, how := range slices.Sorted(maps.Keys(answers)) {
			kinds = append(kinds, fmt.Sprintf("%s (%d)", how, answers[how]))
		}
		x.found(OK, checkAddresses, "", "%d of %d answer as they should: %s", total, len(entries), strings.Join(kinds, ", "))
	}
}

func lookAt(ctx context.Context, e *api.ServiceEntry) look {
	instance := catalog.Instance{ID: e.Service.ID, Host: host(e), Port: e.Service.DefaultPort(), Weight: 1, Tags: e.Service.Tags}
	if err := instance.Validate(); err != nil {
		return look{level: Failure, says: fmt.Sprintf("%s is left out by every client: %v", name(e), err), remedy: "register a host and a port that can be connected to"}
	}
	conn, err := connect(ctx, e)
	if err != nil {
		return silent(e, err)
	}
	defer func() { _ = conn.Close() }()
	switch {
	case speaksTLS(e):
		if err := shake(ctx, conn, host(e)); err != nil {
			return look{
				level: Failure, says: fmt.Sprintf("%s at %s is said to speak TLS, and does not: %s", name(e), address(e), why(err)),
				remedy: "take " + catalog.MetaTLS + " out of its Meta (registration.Config.TLS), or have it speak TLS",
			}
		}
		return look{answers: asTLS}
	case instance.Speaks(catalog.HTTP):
		return lookByHTTP(ctx, e)
	case shake(ctx, conn, host(e)) == nil:
		return secret(e)
	}
	return look{answers: asTCP}
}

func connect(ctx context.Context, e *api.ServiceEntry) (net.Conn, error) {
	return (&net.Dialer{Timeout: lookLimit}).DialContext(ctx, "tcp", address(e))
}

// silent is an address that takes no connection.
func silent(e *api.ServiceEntry, err error) look {
	l := look{
		level: Failure,
		says:  fmt.Sprintf("%s at %s takes no connection (%s), and Consul says %s", name(e), address(e), why(err), e.Checks.AggregatedStatus()),
		remedy: "see whether it runs and listens at that address, not at a loopback alone; or is something between here and there: a firewall, " +
			"a network of containers that this host is not in (then run the doctor inside of it)",
	}
	if status := e.Checks.AggregatedStatus(); status != api.HealthPassing && status != api.HealthWarning {
		l.level = Warning // it is no news to those who would call it
	}
	return l
}

// secret is an address that speaks TLS though its entry does not say so.
func secret(e *api.ServiceEntry) look {
	return look{
		level: Failure, says: fmt.Sprintf("%s at %s speaks TLS, and its entry does not say so: clients speak plain text to it", name(e), address(e)),
		remedy: "register it with Meta " + catalog.MetaTLS + "=true (registration.Config.TLS, `rollcall register --tls`)",
	}
}

// shake returns nil if what answers speaks TLS. Whether it is trusted is no question.
func shake(ctx context.Context, conn net.Conn, server string) error {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	err := tls.Client(conn, &tls.Config{ServerName: server, InsecureSkipVerify: true}).HandshakeContext(ctx)
	if refused, ok := errors.AsType[*net.OpError](err); ok && refused.Op == "remote error" {
		return nil // an alert of TLS: it wants a certificate of us, say
	}
	return err
}

// lookByHTTP asks for / as a client of the mesh does.
func lookByHTTP(ctx context.Context, e *api.ServiceEntry) look {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address(e)+"/", http.NoBody)
	if err != nil {
		return look{level: Failure, says: fmt.Sprintf("%s: %v", name(e), err), remedy: "register a host and a port that can be connected to"}
	}
	req.Header.Set(httpmesh.ServiceHeader, e.Service.Service)
	req.Header.Set("User-Agent", "rollcall-doctor")
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return noHTTP(ctx, e, err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusMisdirectedRequest:
		return look{
			level: Failure, says: fmt.Sprintf("%s at %s is another service now: %s", name(e), address(e), cmp.Or(detailOf(resp.Body), "it answers 421")),
			remedy: fmt.Sprintf("the entry was left over, and its address was given to another: `consul services deregister -id=%s` at node %s", e.Service.ID, e.Node.Node),
		}
	case resp.StatusCode == http.StatusBadRequest && overTLS(ctx, e):
		return secret(e)
	case strings.EqualFold(resp.Header.Get(httpmesh.ServiceHeader), e.Service.Service):
		return look{answers: asService}
	}
	return look{answers: asHTTP}
}

// noHTTP is an address that took the connection, and gave no answer of HTTP's. An
// entry that does not say what it speaks may be anything.
func noHTTP(ctx context.Context, e *api.ServiceEntry, err error) look {
	said := slices.Contains(e.Service.Tags, catalog.HTTP)
	switch {
	case ctx.Err() != nil:
		l := look{
			level: Warning, says: fmt.Sprintf("%s at %s takes connections, and has not answered GET / within %v", name(e), address(e), lookLimit),
			remedy: "see whether it hangs; an entry of what is not HTTP may be so: clients of HTTP leave it out if it is tagged with what it speaks, as grpc",
		}
		if said {
			l.level = Failure
		}
		return l
	case overTLS(ctx, e):
		return secret(e)
	case said:
		return look{
			level: Failure, says: fmt.Sprintf("%s at %s is tagged %s, and does not speak it: %s", name(e), address(e), catalog.HTTP, why(err)),
			remedy: "see what listens at that port; tag the entry with what it speaks",
		}
	}
	return look{answers: asTCP}
}

// overTLS reports whether the address speaks TLS, over a connection of its own.
func overTLS(ctx context.Context, e *api.ServiceEntry) bool {
	conn, err := connect(ctx, e)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	return shake(ctx, conn, host(e)) == nil
}

// detailOf is what a problem (RFC 9457) says.
func detailOf(body io.Reader) string {
	const most = 4 << 10
	var problem struct{ Detail string }
	if err := json.NewDecoder(io.LimitReader(body, most)).Decode(&problem); err != nil {
		return ""
	}
	return clip.To(200, oneLine(problem.Detail))
}

// why is the last word of an error of the network's, which names the address again
// before.
func why(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err
	}
	if lookup, ok := errors.AsType[*net.DNSError](err); ok {
		return clip.To(200, oneLine(lookup.Err)) // its server is that of the system
	}
	return clip.To(200, oneLine(err.Error()))
}
