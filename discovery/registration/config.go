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
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// Config says what to register, and how to keep it true.
type Config struct {
	// Agent to register with, shared by the registrations of a process. nil means
	// one of the registration's own, made of Client.
	Agent *Agent
	// Client of the agent; required. It should have connections to spare that
	// watches can't take: three serve any number of registrations.
	Client *api.Client
	// ConsulAddr is the address that Client talks to, as host:port or a URL of
	// http or https (api.Client does not tell it). The local address of a
	// connection towards it is what is advertised. Needed only without Host.
	ConsulAddr string

	// Service is the name others ask for: 1 to 128 letters, digits, '-', '.'
	// and '_', a letter or digit first. Required.
	Service string
	// ID of the entry, unique on the agent: 1 to 256 of the same characters.
	// Empty means <service>-<hostname>-<port>. At the start an entry that an
	// earlier process left under it is taken over; see ErrIDTaken for later.
	ID string
	// Host to advertise: an IP address (IPv6 without brackets) or a host name.
	// Empty means the local address of a connection towards ConsulAddr, found
	// anew at each registration. Where that is a loopback address, the agent is on
	// this machine or seems so: then it is the address by which others know the
	// agent, if this machine has that. Else ErrLoopback is said.
	Host string
	// Port that others connect to: 1 to 65535. Required.
	Port int

	// Protocol that Port speaks: catalog.HTTP or catalog.GRPC adds the tag of that
	// name, by which clients choose. Empty adds none, which clients take for HTTP.
	// A service with several ports has a registration for each, of the same Service.
	Protocol string
	// TLS says that Port speaks TLS, by the Meta catalog.MetaTLS.
	TLS bool

	// Tags and Meta of the entry, in UTF-8. Consul takes at most 64 pairs, of
	// which 62 are left here, keys of up to 128 letters, digits, '-' and '_',
	// values of up to 512 bytes.
	Tags []string
	Meta map[string]string
	// Weight is the share of traffic asked for, relative to siblings: 1 to
	// 65535; 0 means 1. In state warning the weight is 1.
	Weight int
	// Region and Zone say where the instance runs; empty means unknown. Consul
	// takes no Zone without a Region.
	Region, Zone string

	// CheckPath is the path of an HTTP check that Consul runs on CheckPort of the
	// advertised host, such as "/readyz"; it finds hung processes and dead
	// networks. Empty means no such check.
	CheckPath string
	CheckPort int
	// CheckInterval of the HTTP check: 0 means 5s, or CheckTimeout if that is
	// longer. CheckTimeout is its limit: 0 means 2s, or CheckInterval if that is
	// shorter. Two failures in a row make it critical. Shorter finds the dead
	// sooner and costs a request each.
	CheckInterval, CheckTimeout time.Duration

	// TTL is how long a heartbeat counts: 0 means three times HeartbeatInterval,
	// or 30s if that is 0 too. HeartbeatInterval must be shorter: 0 means a third
	// of TTL; two or more within the TTL, so that a lost one is no news.
	TTL, HeartbeatInterval time.Duration
	// DeregisterAfter is how long Consul keeps the entry while one of its checks
	// is critical. 0 means 1m, which is the least that Consul heeds.
	DeregisterAfter time.Duration

	// Ready says whether the instance can serve: nil, or why not. It is asked when
	// the entry is written, at each heartbeat, and at Refresh; it must not depend
	// on Consul or peers. One that panics, or has not returned after a second, says
	// no. nil means always ready.
	Ready func() error

	// Settle is how long a drain waits after draining was seen in the catalog,
	// for others to see it too. 0 means 500ms.
	Settle time.Duration
	// SettleMax bounds that wait while new requests still arrive. 0 means 3s, or
	// Settle if that is longer.
	SettleMax time.Duration
	// Arrivals returns how many requests have arrived so far; it never falls.
	// nil means unknown, as does one that hangs or panics: a drain waits for
	// Settle alone.
	Arrivals func() uint64
	// ConsulTimeout is how long a Consul that does not answer may hold up Drain
	// and Close together. 0 means 2s.
	ConsulTimeout time.Duration

	// Trace is told what happens; nil means none.
	Trace *Trace
	// Log gets changes of state at info, and trouble once per outage at warn or
	// error. nil means slog.Default().
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
	maxMetaPairs      = 64 - 2 // processKey and writeKey
	maxMetaKeyBytes   = 128
	maxMetaValueBytes = 512
	// Consul heeds no shorter deregister_critical_service_after.
	minDeregisterAfter = time.Minute
)

// filled returns the settings with zero values replaced by what they mean. The
// slices and maps are copies.
func (c Config) filled() (Config, error) {
	c.Tags, c.Meta = slices.Clone(c.Tags), maps.Clone(c.Meta)
	if c.Protocol != "" && !slices.Contains(c.Tags, c.Protocol) {
		c.Tags = append(c.Tags, c.Protocol)
	}
	if _, said := c.Meta[catalog.MetaTLS]; c.TLS && !said {
		if c.Meta == nil {
			c.Meta = map[string]string{}
		}
		c.Meta[catalog.MetaTLS] = "true"
	}
	c.Weight = cmp.Or(c.Weight, 1)
	c.CheckInterval = cmp.Or(c.CheckInterval, max(5*time.Second, c.CheckTimeout))
	c.CheckTimeout = cmp.Or(c.CheckTimeout, min(2*time.Second, c.CheckInterval))
	c.TTL = cmp.Or(c.TTL, 3*c.HeartbeatInterval, 30*time.Second)
	c.HeartbeatInterval = cmp.Or(c.HeartbeatInterval, c.TTL/3)
	c.DeregisterAfter = cmp.Or(c.DeregisterAfter, minDeregisterAfter)
	c.Settle = cmp.Or(c.Settle, 500*time.Millisecond)
	c.SettleMax = cmp.Or(c.SettleMax, max(3*time.Second, c.Settle))
	c.ConsulTimeout = cmp.Or(c.ConsulTimeout, 2*time.Second)
	if c.Client == nil && c.Agent != nil {
		c.Client = c.Agent.cfg.Client
	}
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.Trace == nil {
		c.Trace = &Trace{}
	}
	if c.Log == nil {
		c.Log = slog.Default()
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
		return bad("Client", "nil", "a client of Consul, that of Agent if there is one")
	case catalog.CheckService(c.Service) != nil:
		return bad("Service", strconv.Quote(c.Service), fmt.Sprintf("1 to %d %s, a letter or digit first", catalog.MaxServiceBytes, charset))
	case c.Port < 1 || c.Port > 65535:
		return bad("Port", c.Port, "1 to 65535")
	case c.Protocol != "" && c.Protocol != catalog.HTTP && c.Protocol != catalog.GRPC:
		return bad("Protocol", strconv.Quote(c.Protocol), `"http", "grpc", or empty`)
	case c.TLS && c.Meta[catalog.MetaTLS] != "true":
		return bad("Meta["+strconv.Quote(catalog.MetaTLS)+"]", strconv.Quote(c.Meta[catalog.MetaTLS]), "it left out, since TLS is set")
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
	if c.CheckPath != "" {
		switch {
		case !strings.HasPrefix(c.CheckPath, "/") || !utf8.ValidString(c.CheckPath):
			return bad("CheckPath", strconv.Quote(c.CheckPath), "a path that begins with /, in UTF-8")
		case c.CheckPort < 1 || c.CheckPort > 65535:
			return bad("CheckPort", c.CheckPort, "1 to 65535")
		}
	}
	for i, tag := range c.Tags {
		if err := consul.CheckText(fmt.Sprintf("Tags[%d]", i), tag); err != nil {
			return fmt.Errorf("registration: %w", err)
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
		case k == processKey || k == writeKey:
			return fmt.Errorf("registration: Meta has the key %q; want another, since that one is rollcall's", k)
		case consul.CheckText(fmt.Sprintf("Meta[%q]", k), v) != nil:
			return fmt.Errorf("registration: %w", consul.CheckText(fmt.Sprintf("Meta[%q]", k), v))
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
		{"CheckInterval", c.CheckInterval},
		{"CheckTimeout", c.CheckTimeout},
		{"TTL", c.TTL},
		{"HeartbeatInterval", c.HeartbeatInterval},
		{"Settle", c.Settle},
		{"SettleMax", c.SettleMax},
		{"ConsulTimeout", c.ConsulTimeout},
	} {
		if d.value < 0 {
			return fmt.Errorf("registration: %s is %v; want more than 0, or 0 for the default", d.field, d.value)
		}
	}
	switch {
	case c.HeartbeatInterval >= c.TTL:
		return fmt.Errorf("registration: HeartbeatInterval is %v; want less than TTL (%v)", c.HeartbeatInterval, c.TTL)
	case c.CheckTimeout > c.CheckInterval:
		return fmt.Errorf("registration: CheckTimeout is %v; want at most CheckInterval (%v)", c.CheckTimeout, c.CheckInterval)
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
