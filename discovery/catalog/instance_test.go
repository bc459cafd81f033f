package catalog_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func good() catalog.Instance {
	return catalog.Instance{ID: "order-1", Service: "order", Host: "10.0.0.3", Port: 8080, Weight: 1, State: catalog.StatePassing}
}

func TestValidateNamesTheFieldThatCannotBeUsed(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*catalog.Instance)
		field  string
	}{
		{"nothing", func(*catalog.Instance) {}, ""},
		{"IPv6", func(i *catalog.Instance) { i.Host = "2001:db8::1" }, ""},
		{"host name", func(i *catalog.Instance) { i.Host = "order_1.internal." }, ""},
		{"no ID", func(i *catalog.Instance) { i.ID = "" }, "ID"},
		{"endless ID", func(i *catalog.Instance) { i.ID = strings.Repeat("x", 257) }, "ID"},
		{"no host", func(i *catalog.Instance) { i.Host = "" }, "Host"},
		{"brackets", func(i *catalog.Instance) { i.Host = "[::1]" }, "Host"},
		{"IPv6 zone", func(i *catalog.Instance) { i.Host = "fe80::1%eth0" }, "Host"},
		{"unspecified", func(i *catalog.Instance) { i.Host = "0.0.0.0" }, "Host"},
		{"multicast", func(i *catalog.Instance) { i.Host = "224.0.0.1" }, "Host"},
		{"mistyped address", func(i *catalog.Instance) { i.Host = "300.1.1.1" }, "Host"},
		{"host with port", func(i *catalog.Instance) { i.Host = "order:80" }, "Host"},
		{"host with path", func(i *catalog.Instance) { i.Host = "order/../x" }, "Host"},
		{"hyphen first", func(i *catalog.Instance) { i.Host = "-order" }, "Host"},
		{"hyphen last", func(i *catalog.Instance) { i.Host = "order-" }, "Host"},
		{"empty label", func(i *catalog.Instance) { i.Host = "a..b" }, "Host"},
		{"endless label", func(i *catalog.Instance) { i.Host = strings.Repeat("a", 64) }, "Host"},
		{"port 0", func(i *catalog.Instance) { i.Port = 0 }, "Port"},
		{"port -1", func(i *catalog.Instance) { i.Port = -1 }, "Port"},
		{"port 70000", func(i *catalog.Instance) { i.Port = 70000 }, "Port"},
		{"weight 0", func(i *catalog.Instance) { i.Weight = 0 }, "Weight"},
		{"absurd weight", func(i *catalog.Instance) { i.Weight = 1 << 20 }, "Weight"},
		{"huge meta", func(i *catalog.Instance) { i.Meta = map[string]string{"k": strings.Repeat("x", 100_000)} }, "Meta"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := good()
			c.change(&i)
			err := i.Validate()
			if c.field == "" {
				if err != nil {
					t.Fatalf("got %v; want nil", err)
				}
				return
			}
			var invalid *catalog.InvalidError
			if !errors.As(err, &invalid) || invalid.Field != c.field {
				t.Fatalf("got %v; want an InvalidError about %s", err, c.field)
			}
			if len(err.Error()) > 400 {
				t.Errorf("the error is %d bytes long; want it to be clipped", len(err.Error()))
			}
		})
	}
}

func TestAddrPutsIPv6InBrackets(t *testing.T) {
	i := good()
	i.Host = "2001:db8::1"
	if got, want := i.Addr(), "[2001:db8::1]:8080"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
}

func TestKeyChangesWithTheAddressAlone(t *testing.T) {
	a, b := good(), good()
	b.State, b.Weight, b.Reason, b.MissingUntil = catalog.StateCritical, 7, "timeout", time.Now()
	if a.Key() != b.Key() {
		t.Errorf("got %v and %v; want one key for one instance at one address", a.Key(), b.Key())
	}
	b.Port++
	if a.Key() == b.Key() {
		t.Error("got one key for two addresses")
	}
}

func TestStatesHaveNamesAndOnlyTwoAreReady(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range catalog.States {
		text, err := s.MarshalText()
		if err != nil || seen[string(text)] || strings.Contains(string(text), "(") {
			t.Errorf("state %d is called %q (%v); want a name of its own", s, text, err)
		}
		seen[string(text)] = true
		if want := s == catalog.StatePassing || s == catalog.StateWarning; s.Ready() != want {
			t.Errorf("%s: got ready %v; want %v", s, s.Ready(), want)
		}
	}
	if got := catalog.State(42).String(); got != "state(42)" {
		t.Errorf("got %q; want state(42)", got)
	}
}

// What Validate lets through can be written as host:port and read back.
func FuzzValidHostCanBeDialled(f *testing.F) {
	for _, host := range []string{"10.0.0.3", "::1", "order.internal", "[::1]", "a b", "fe80::1%eth0", "x:y"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		i := good()
		i.Host = host
		if i.Validate() != nil {
			return
		}
		back, port, err := net.SplitHostPort(i.Addr())
		if err != nil || back != host || port != "8080" {
			t.Errorf("%q: got %q, %q, %v; want the host and port as they went in", host, back, port, err)
		}
	})
}

func ExampleFixed() {
	var source catalog.Fixed
	err := source.Set("order",
		catalog.Instance{ID: "order-a", Host: "10.0.0.3", Port: 8080},
		catalog.Instance{ID: "order-b", Host: "2001:db8::4", Port: 8080, State: catalog.StateDraining},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	snapshot, err := source.Latest(ctx(), "order")
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range snapshot.All() {
		fmt.Println(i.ID, i.Addr(), i.State)
	}
	// Output:
	// order-a 10.0.0.3:8080 passing
	// order-b [2001:db8::4]:8080 draining
}

func TestStateIsReadAsItIsWritten(t *testing.T) {
	for _, want := range append(catalog.States[:], catalog.StateUnknown) {
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := catalog.StateDraining
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want it as it was", text, got, err)
		}
	}
	got := catalog.StatePassing
	if err := got.UnmarshalText([]byte("resting")); err != nil || got != catalog.StateUnknown {
		t.Errorf("got %v, %v of a later version's word; want unknown", got, err)
	}
}
