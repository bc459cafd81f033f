package gateway_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/services/gateway/split"
)

// versions makes the instances of order: ID and version, each at a server of its own.
func (d *door) versions(all ...string) (servers []*httptest.Server) {
	d.t.Helper()
	var instances []catalog.Instance
	for n, v := range all {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, v) }))
		d.t.Cleanup(s.Close)
		servers = append(servers, s)
		at := netip.MustParseAddrPort(s.Listener.Addr().String())
		instances = append(instances, catalog.Instance{ID: fmt.Sprint("order-", n), Host: at.Addr().String(), Port: int(at.Port()), Meta: map[string]string{"version": v}})
	}
	if err := d.fleet.Set("order", instances...); err != nil {
		d.t.Fatal(err)
	}
	return servers
}

// ask sends n requests for order, and counts which version has answered.
func (d *door) ask(n int, header ...string) map[string]int {
	d.t.Helper()
	count := map[string]int{}
	for range n {
		resp, body := d.do(d.request(http.MethodGet, "/orders/1", nil, header...))
		if resp.StatusCode != http.StatusOK {
			d.t.Fatalf("got %s %s", resp.Status, body)
		}
		count[body]++
	}
	return count
}

func splits(t *testing.T, text string) func() *split.Splits {
	t.Helper()
	s, err := split.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return func() *split.Splits { return s }
}

func TestShareOfAVersionIsWhatTheSplitSays(t *testing.T) {
	t.Parallel()
	const n, p = 500, 0.1 // split.TestShareOfAVersionIsThatOfTheRule has 10,000
	d := open(t, options{quiet: true, splits: splits(t, `{"order": [
		{"to": "version=v2", "header": "X-Version=v2"},
		{"to": "version=v2", "percent": 10, "sticky": "cookie:session"}
	]}`)})
	d.versions("v1", "v1", "v2")
	count := d.ask(n)
	if sigma := math.Sqrt(n * p * (1 - p)); math.Abs(float64(count["v2"])-n*p) > 4*sigma || count["v1"]+count["v2"] != n {
		t.Errorf("%v; want %v to v2, give or take %.0f", count, n*p, 4*sigma)
	}
	if count := d.ask(20, "X-Version", "v2"); count["v2"] != 20 {
		t.Errorf("with the header: %v; want v2 alone", count)
	}
	seen := map[string]bool{}
	for k := range 40 {
		count := d.ask(3, "Cookie", fmt.Sprint("session=", k))
		if len(count) != 1 {
			t.Errorf("session %d: %v; want one version", k, count)
		}
		for v := range count {
			seen[v] = true
		}
	}
	if len(seen) != 2 {
		t.Errorf("40 sessions saw %v; want both versions", seen)
	}
}

func TestWithoutTheSecondVersionTheFirstAnswersAndNoRequestFails(t *testing.T) {
	t.Parallel()
	d := open(t, options{splits: splits(t, `{"order": [{"to": "version=v2", "percent": 100}]}`)})
	servers := d.versions("v1", "v2")
	if count := d.ask(20); count["v2"] != 20 {
		t.Errorf("%v; want v2", count)
	}
	servers[1].CloseClientConnections()
	servers[1].Close() // it is in the catalog still
	if count := d.ask(20); count["v1"] != 20 {
		t.Errorf("with a v2 that refuses: %v; want v1", count)
	}
	d.versions("v1")
	if count := d.ask(20); count["v1"] != 20 {
		t.Errorf("without a v2: %v; want v1", count)
	}
	if err := d.fleet.Set("order"); err != nil {
		t.Fatal(err)
	}
	resp, body := d.do(d.request(http.MethodGet, "/orders/1", nil))
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "order has no instance") {
		t.Errorf("without any: %s %s; want a 503", resp.Status, body)
	}
}
