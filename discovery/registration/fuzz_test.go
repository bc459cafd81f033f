package registration

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// FuzzAdvertisedHost: what a service would advertise, clients would take: else
// it would be registered and never called.
func FuzzAdvertisedHost(f *testing.F) {
	for _, host := range []string{"10.0.0.3", "::1", "[::1]", "order.internal", "order_1", "fe80::1%eth0", "0.0.0.0", "224.0.0.1", "300.1.1.1", "a..b", "-a", "a b", "ö.example", "::ffff:10.0.0.1", "x:1"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if advertisable(host) != nil {
			return
		}
		entry := catalog.Instance{ID: "order-1", Host: host, Port: 8080, Weight: 1}
		if err := entry.Validate(); err != nil {
			t.Errorf("%q is advertised, and refused by those who read it: %v", host, err)
		}
	})
}

// FuzzConsulAddress: what is taken can be dialled.
func FuzzConsulAddress(f *testing.F) {
	for _, addr := range []string{"127.0.0.1:8500", "http://consul:8500", "https://consul", "[::1]:8500", "consul", "http://", ":8500", "http://a:b:c", "unix:///x", "http://u:p@h:1/"} {
		f.Add(addr)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		hp, err := hostPort(addr)
		if err != nil {
			return
		}
		host, port, err := net.SplitHostPort(hp)
		if err != nil || host == "" || port == "" {
			t.Fatalf("%q gives %q: %q, %q, %v; want host and port", addr, hp, host, port, err)
		}
		if ip, err := netip.ParseAddr(host); err == nil && net.JoinHostPort(ip.String(), port) == "" {
			t.Errorf("%q gives %q", addr, hp)
		}
		if n, err := strconv.Atoi(port); err == nil && (n < 0 || n > 65535) {
			t.Errorf("%q gives the port %d; want at most 65535", addr, n)
		}
	})
}
