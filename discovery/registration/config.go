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
	// EnableTagOverride leaves the tags to operators once the entry is there: what
	// they change in the catalog stays, through every mend, until the process ends.
	EnableTagOverride bool
	// Ports are further ports of the instance, by names of up to 63 letters, digits
	// and '-'. With them the entry has Consul's named ports (Consul 1.22 or later):
	// these, and Port as the default one under the name of Protocol, or "default".
	// All share the entry's checks, TLS and drain; most readers of the catalog see
	// Port alone. Empty means an ordinary entry.
	Ports map[string]int
	// TaggedAddresses are further addresses of the instance, for readers elsewhere:
	// "lan", "wan", each with "_ipv4" or "_ipv6" as well. A Port of 0 means Port.
	// Consul itself adds lan_ipv4 and wan_ipv4, or those of IPv6, where Host is an
	// IP address.
	TaggedAddresses map[string]api.ServiceAddress
	// Weight is the share of traffic asked for, relative to siblings, and
	// WarningWeight that in state warning: 1 to 65535; 0 means 1.
	Weight, WarningWeight int
	// Region and Zone say where the instance runs; empty means unknown. Consul
	// takes no Zone without a Region.
	Region, Zone string

	// Checks that Consul runs, any number of them. None means that the heartbeat
	// alone says how the instance is.
	Checks []Check
	// NoHeartbeat leaves out the heartbeat, a TTL check of our own, but for a drain,
	// which it announces. Then an instance passes as soon as Checks do: what Ready
	// says counts only when the entry is written. Without Checks as well it passes
	// always, dead or alive.
	NoHeartbeat bool
	// TTL is how long a heartbeat counts: 0 means three times HeartbeatInterval,
	// or 30s if that is 0 too. HeartbeatInterval must be shorter: 0 means a third
	// of TTL; two or more within the TTL, so that a lost one is no news. Without a
	// heartbeat the agent is asked as often whether it has the entry.
	TTL, HeartbeatInterval time.Duration
	// DeregisterAfter is how long Consul keeps the entry while one of its checks
	// is critical. 0 means 1m, which is the least that Consul heeds. Negative means
	// for ever: what a killed process leaves is somebody else's to remove.
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
	c.Weight, c.WarningWeight = cmp.Or(c.Weight, 1), cmp.Or(c.WarningWeight, 1)
	c.Ports, c.TaggedAddresses = maps.Clone(c.Ports), maps.Clone(c.TaggedAddresses)
	for tag, addr := range c.TaggedAddresses {
		addr.Port = cmp.Or(addr.Port, c.Port)
		c.TaggedAddresses[tag] = addr
	}
	c.Checks = slices.Clone(c.Checks)
	for n, k := range c.Checks {
		c.Checks[n] = k.filled(&c)
	}
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

const (
	wantWeight   = "0 to 65535"
	charset      = "letters, digits, '-', '.' and '_'"
	wantPort     = "1 to 65535"
	wantDuration = "more than 0, or 0 for the default"
)

// rule is one about a setting: whether it is kept, and what is said if not.
type rule struct {
	kept  bool
	field string
	value any
	want  string
}

// firstBroken is the error of the first rule that is not kept. before is put before
// the field's name.
func firstBroken(before string, rules []rule) error {
	for _, r := range rules {
		if !r.kept {
			return fmt.Errorf("registration: %s%s is %v; want %s", before, r.field, r.value, r.want)
		}
	}
	return nil
}

func isPort(n int) bool { return n >= 1 && n <= 65535 }

// Validate says what is wrong with the settings, and begins nothing: what Start would say
// of them. nil if they can be used.
func (c Config) Validate() error {
	c, err := c.filled()
	if err != nil {
		return err
	}
	return c.validate()
}

// validate says what is wrong with filled settings: the first thing only.
func (c Config) validate() error {
	if err := firstBroken("", []rule{
		{c.Client != nil, "Client", "nil", "a client of Consul, that of Agent if there is one"},
		{catalog.CheckService(c.Service) == nil, "Service", strconv.Quote(c.Service), fmt.Sprintf("1 to %d %s, a letter or digit first", catalog.MaxServiceBytes, charset)},
		{isPort(c.Port), "Port", c.Port, wantPort},
		{c.Protocol == "" || c.Protocol == catalog.HTTP || c.Protocol == catalog.GRPC, "Protocol", strconv.Quote(c.Protocol), `"http", "grpc", or empty`},
		{!c.TLS || c.Meta[catalog.MetaTLS] == "true", fmt.Sprintf("Meta[%q]", catalog.MetaTLS), strconv.Quote(c.Meta[catalog.MetaTLS]), "it left out, since TLS is set"},
		{wellNamed(c.ID, maxIDBytes), "ID", strconv.Quote(c.ID), fmt.Sprintf("1 to %d %s", maxIDBytes, charset)},
		{c.Weight >= 1 && c.Weight <= catalog.MaxWeight, "Weight", c.Weight, wantWeight},
		{c.WarningWeight >= 1 && c.WarningWeight <= catalog.MaxWeight, "WarningWeight", c.WarningWeight, wantWeight},
		{c.Zone == "" || c.Region != "", "Zone", strconv.Quote(c.Zone), "a Region as well, since Consul takes no zone without one"},
		{c.TTL >= 0, "TTL", c.TTL, wantDuration},
		{c.HeartbeatInterval >= 0, "HeartbeatInterval", c.HeartbeatInterval, wantDuration},
		{c.Settle >= 0, "Settle", c.Settle, wantDuration},
		{c.SettleMax >= 0, "SettleMax", c.SettleMax, wantDuration},
		{c.ConsulTimeout >= 0, "ConsulTimeout", c.ConsulTimeout, wantDuration},
		{c.HeartbeatInterval < c.TTL, "HeartbeatInterval", c.HeartbeatInterval, fmt.Sprintf("less than TTL (%v)", c.TTL)},
		{c.Settle <= c.SettleMax, "Settle", c.Settle, fmt.Sprintf("at most SettleMax (%v)", c.SettleMax)},
		{c.DeregisterAfter < 0 || c.DeregisterAfter >= minDeregisterAfter, "DeregisterAfter", c.DeregisterAfter, fmt.Sprintf("at least %v, or less than 0 for never", minDeregisterAfter)},
	}); err != nil {
		return err
	}
	if c.Host != "" {
		if err := advertisable(c.Host); err != nil {
			return fmt.Errorf("registration: Host is %q; want %w", c.Host, err)
		}
	} else if _, err := hostPort(c.ConsulAddr); err != nil {
		return fmt.Errorf("registration: ConsulAddr is %q; want %w, or Host set", c.ConsulAddr, err)
	}
	for i, tag := range c.Tags {
		if err := consul.CheckText(fmt.Sprintf("Tags[%d]", i), tag); err != nil {
			return fmt.Errorf("registration: %w", err)
		}
	}
	return cmp.Or(c.validateMeta(), c.validateAddresses(), c.validateChecks())
}

func (c Config) validateChecks() error {
	seen := map[string]bool{}
	for n, k := range c.Checks {
		field := fmt.Sprintf("Checks[%d]", n)
		if err := k.validate(field); err != nil {
			return err
		}
		if seen[k.Name] {
			return fmt.Errorf("registration: %s.Name is %q; want another, since an earlier check has it", field, k.Name)
		}
		seen[k.Name] = true
	}
	return nil
}

// validateAddresses is about the ports and addresses besides Host and Port.
func (c Config) validateAddresses() error {
	for _, name := range slices.Sorted(maps.Keys(c.Ports)) {
		switch port := c.Ports[name]; {
		case !wellNamed(name, 63) || strings.ContainsAny(name, "._"):
			return fmt.Errorf("registration: Ports has the name %q; want 1 to 63 letters, digits and '-'", name)
		case name == c.portName():
			return fmt.Errorf("registration: Ports has the name %q; want another, since Port has that", name)
		case !isPort(port):
			return fmt.Errorf("registration: Ports[%q] is %d; want %s", name, port, wantPort)
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(c.TaggedAddresses)) {
		if !slices.Contains(addressTags, tag) {
			return fmt.Errorf("registration: TaggedAddresses has the tag %q; want one of %s", tag, strings.Join(addressTags, ", "))
		}
		addr, field := c.TaggedAddresses[tag], fmt.Sprintf("TaggedAddresses[%q]", tag)
		ip, err := netip.ParseAddr(addr.Address)
		if err := firstBroken(field, []rule{
			{!strings.HasSuffix(tag, "4") || err == nil && ip.Is4(), ".Address", strconv.Quote(addr.Address), "an IPv4 address"},
			{!strings.HasSuffix(tag, "6") || err == nil && ip.Is6(), ".Address", strconv.Quote(addr.Address), "an IPv6 address"},
			{isPort(addr.Port), ".Port", addr.Port, wantPort},
		}); err != nil {
			return err
		}
		if err := advertisable(addr.Address); err != nil {
			return fmt.Errorf("registration: %s.Address is %q; want %w", field, addr.Address, err)
		}
	}
	return nil
}

var addressTags = []string{"lan", "lan_ipv4", "lan_ipv6", "wan", "wan_ipv4", "wan_ipv6"}

// portName is the name of Port among named ports.
func (c Config) portName() string { return cmp.Or(c.Protocol, "default") }

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
