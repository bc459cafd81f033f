package registration

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Config says what to register, and how to keep it true.
type Config struct {
	// Client of the agent to register with; required. It should have a
	// connection to spare that watches can't take.
	Client *api.Client
	// ConsulAddr is the address that Client talks to, as host:port or
	// http(s)://host:port (api.Client does not tell it). The local address of a
	// connection towards it is what is advertised. Needed only without Host.
	ConsulAddr string

	// Service is the name others ask for: 1 to 128 letters, digits, '-', '.'
	// and '_', a letter or digit first. Required.
	Service string
	// ID of the entry, unique on the agent: 1 to 256 of the same characters.
	// Empty means <service>-<hostname>-<port>. The instance owns its ID: an
	// entry that another process left under it is taken over.
	ID string
	// Host to advertise: an IP address (IPv6 without brackets) or a host name.
	// Empty means the local address of a connection towards ConsulAddr, found
	// anew at each registration.
	Host string
	// Port that others connect to: 1 to 65535. Required.
	Port int

	// Tags and Meta of the entry. Consul takes at most 64 pairs, keys of up to
	// 128 letters, digits, '-' and '_', values of up to 512 bytes.
	Tags []string
	Meta map[string]string
	// Weight is the share of traffic asked for, relative to siblings: 1 to
	// 65535; 0 means 1. In state warning the weight is 1.
	Weight int
	// Region and Zone say where the instance runs; empty means unknown. Consul
	// takes no Zone without a Region.
	Region, Zone string

	// Probe is the path of an HTTP check that Consul runs on ProbePort of the
	// advertised host, such as "/readyz"; it finds hung processes and dead
	// networks. Empty means no such check.
	Probe     string
	ProbePort int
	// ProbeEvery is the interval of the HTTP check, 0 means 5s; ProbeTimeout its
	// limit, 0 means 2s. Two failures in a row make it critical. Shorter finds
	// the dead sooner and costs a request each.
	ProbeEvery, ProbeTimeout time.Duration

	// Beat is the interval of heartbeats, 0 means 10s. TTL is how long the last
	// one counts, 0 means 30s. TTL must be longer than Beat; two or more beats
	// longer, so that a lost one is no news.
	TTL, Beat time.Duration
	// Look is how often the entry is looked up in the catalog when there is no
	// reason to, give or take a fifth; 0 means 10s. Shorter mends sooner what was
	// lost in silence, and costs Consul a filtered read of the service each time.
	Look time.Duration
	// Pulse is how often the agent is asked whether it has the entry's checks,
	// and the cluster whether it has a leader, give or take a fifth; 0 means
	// 750ms. Shorter mends sooner a lost check, and an entry that the servers
	// behind a client agent lost with their data; it costs two small answers.
	Pulse time.Duration
	// DeregisterAfter is how long Consul keeps the entry while one of its checks
	// is critical. 0 means 1m, which is the least that Consul heeds.
	DeregisterAfter time.Duration

	// Ready says whether the instance can serve: nil, or why not. It is asked at
	// each beat and look and at Refresh, must be quick, and must not depend on
	// Consul or peers. A nil func means always ready.
	Ready func() error

	// Settle is how long a drain waits after draining was seen in the catalog,
	// for others to see it too. 0 means 500ms.
	Settle time.Duration
	// SettleMax bounds that wait while new requests still arrive. 0 means 3s.
	SettleMax time.Duration
	// Arrivals returns how many requests have arrived so far; it never falls.
	// nil means unknown: a drain waits for Settle alone.
	Arrivals func() uint64
	// Unreachable is how long a Consul that does not answer may hold up Drain
	// and Close together. 0 means 2s.
	Unreachable time.Duration

	// Trace is told what happens; nil means nobody.
	Trace *Trace
	// Log gets changes of state at info and trouble once per outage at warn. nil
	// discards them.
	Log *slog.Logger

	// network finds the address to advertise; tests replace it.
	network network
}

// network is what an instance knows of the machine's addresses.
type network interface {
	// towards returns the local address of a connection towards addr.
	towards(ctx context.Context, addr string) (netip.Addr, error)
	// has reports whether the address is the machine's own.
	has(host string) bool
}

const (
	maxIDBytes = 256
	maxWeight  = 65535
	// Consul's limits of a service's meta (agent/structs, metaMaxKeyPairs).
	maxMetaPairs      = 64
	maxMetaKeyBytes   = 128
	maxMetaValueBytes = 512
	// Consul heeds no shorter deregister_critical_service_after.
	minDeregisterAfter = time.Minute
)

// filled returns the settings with zero values replaced by what they mean. The
// slices and maps are copies.
func (c Config) filled() (Config, error) {
	c.Tags, c.Meta = slices.Clone(c.Tags), maps.Clone(c.Meta)
	c.Weight = cmp.Or(c.Weight, 1)
	c.ProbeEvery = cmp.Or(c.ProbeEvery, 5*time.Second)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, 2*time.Second)
	c.TTL = cmp.Or(c.TTL, 30*time.Second)
	c.Beat = cmp.Or(c.Beat, 10*time.Second)
	c.Look = cmp.Or(c.Look, 10*time.Second)
	c.Pulse = cmp.Or(c.Pulse, 750*time.Millisecond)
	c.DeregisterAfter = cmp.Or(c.DeregisterAfter, minDeregisterAfter)
	c.Settle = cmp.Or(c.Settle, 500*time.Millisecond)
	c.SettleMax = cmp.Or(c.SettleMax, 3*time.Second)
	c.Unreachable = cmp.Or(c.Unreachable, 2*time.Second)
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.Trace == nil {
		c.Trace = &Trace{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.network == nil {
		c.network = machine{}
	}
	if c.ID == "" {
		host, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("registration: ID is empty and the host name for a default is not known: %w", err)
		}
		c.ID = c.Service + "-" + host + "-" + strconv.Itoa(c.Port)
	}
	return c, nil
}

// validate says what is wrong with filled settings: the first thing only.
func (c Config) validate() error {
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("registration: %s is %v; want %s", field, value, want)
	}
	const charset = "letters, digits, '-', '.' and '_'"
	switch {
	case c.Client == nil:
		return bad("Client", "nil", "a client of Consul")
	case catalog.CheckService(c.Service) != nil:
		return bad("Service", strconv.Quote(c.Service), fmt.Sprintf("1 to %d %s, a letter or digit first", catalog.MaxServiceBytes, charset))
	case c.Port < 1 || c.Port > 65535:
		return bad("Port", c.Port, "1 to 65535")
	case !wellNamed(c.ID, maxIDBytes):
		return bad("ID", strconv.Quote(c.ID), fmt.Sprintf("1 to %d %s", maxIDBytes, charset))
	case c.Weight < 1 || c.Weight > maxWeight:
		return bad("Weight", c.Weight, fmt.Sprintf("0 to %d", maxWeight))
	case c.Zone != "" && c.Region == "":
		return bad("Zone", strconv.Quote(c.Zone), "a Region as well, since Consul takes no zone without one")
	}
	if c.Host != "" {
		if err := advertisable(c.Host); err != nil {
			return fmt.Errorf("registration: Host is %q; want %w", c.Host, err)
		}
	} else if _, err := hostPort(c.ConsulAddr); err != nil {
		return fmt.Errorf("registration: ConsulAddr is %q; want %w, or Host set", c.ConsulAddr, err)
	}
	if c.Probe != "" {
		switch {
		case !strings.HasPrefix(c.Probe, "/"):
			return bad("Probe", strconv.Quote(c.Probe), "a path that begins with /")
		case c.ProbePort < 1 || c.ProbePort > 65535:
			return bad("ProbePort", c.ProbePort, "1 to 65535")
		}
	}
	if err := c.validateMeta(); err != nil {
		return err
	}
	return c.validateTimes()
}

func (c Config) validateMeta() error {
	if len(c.Meta) > maxMetaPairs {
		return fmt.Errorf("registration: Meta has %d pairs; want at most %d", len(c.Meta), maxMetaPairs)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Meta)) {
		switch v := c.Meta[k]; {
		case !wellNamed(k, maxMetaKeyBytes) || strings.Contains(k, "."):
			return fmt.Errorf("registration: Meta has the key %q; want 1 to %d letters, digits, '-' and '_'", k, maxMetaKeyBytes)
		case strings.HasPrefix(k, "consul-"):
			return fmt.Errorf("registration: Meta has the key %q; want none that begins with consul-, which Consul keeps for itself", k)
		case len(v) > maxMetaValueBytes:
			return fmt.Errorf("registration: Meta[%q] is %d bytes; want at most %d", k, len(v), maxMetaValueBytes)
		}
	}
	return nil
}

func (c Config) validateTimes() error {
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"ProbeEvery", c.ProbeEvery},
		{"ProbeTimeout", c.ProbeTimeout},
		{"TTL", c.TTL},
		{"Beat", c.Beat},
		{"Look", c.Look},
		{"Pulse", c.Pulse},
		{"Settle", c.Settle},
		{"SettleMax", c.SettleMax},
		{"Unreachable", c.Unreachable},
	} {
		if d.value < 0 {
			return fmt.Errorf("registration: %s is %v; want more than 0, or 0 for the default", d.field, d.value)
		}
	}
	switch {
	case c.Beat >= c.TTL:
		return fmt.Errorf("registration: Beat is %v; want less than TTL (%v)", c.Beat, c.TTL)
	case c.ProbeTimeout > c.ProbeEvery:
		return fmt.Errorf("registration: ProbeTimeout is %v; want at most ProbeEvery (%v)", c.ProbeTimeout, c.ProbeEvery)
	case c.Settle > c.SettleMax:
		return fmt.Errorf("registration: Settle is %v; want at most SettleMax (%v)", c.Settle, c.SettleMax)
	case c.DeregisterAfter < minDeregisterAfter:
		return fmt.Errorf("registration: DeregisterAfter is %v; want at least %v", c.DeregisterAfter, minDeregisterAfter)
	}
	return nil
}

func (c Config) weights() api.AgentWeights { return api.AgentWeights{Passing: c.Weight, Warning: 1} }

// wellNamed reports whether s is 1 to limit letters, digits, '-', '.' and '_',
// and no step in a path ("." or ".."). Such a name needs no escaping in a URL or
// in a filter.
func wellNamed(s string, limit int) bool {
	if s == "" || len(s) > limit || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '-', b == '.', b == '_':
		default:
			return false
		}
	}
	return true
}
