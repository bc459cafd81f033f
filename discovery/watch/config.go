package watch

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Config says how to follow services. Only Client is required.
type Config struct {
	// Client asks Consul. It needs room for MaxQueries connections and 16
	// more, and must have no time limit for whole calls.
	Client *api.Client
	// MissingFor is how long an instance that vanished in good health stays in
	// the set. 0 means 30s, negative means not at all. Longer bridges a
	// catalog that takes longer to fill again; it is also how long the address
	// of a process that died without a word may be tried.
	MissingFor time.Duration
	// StaleFor is how old the last proof of a set may be before Latest answers
	// with ErrStale instead. 0 means for ever: an old set is better than none.
	StaleFor time.Duration
	// Dir is a folder in which the last set of each service is kept, for a
	// start while Consul is away: then it is used, marked catalog.ErrFromDisk,
	// until Consul answers. "" means that nothing is kept. The folder is made if
	// it is not there; it belongs to one mesh, and may be shared by processes of
	// one user. It and its files must be this user's or root's, and not open to
	// others to write. An error of New says that it can't be used.
	Dir string
	// DirMaxAge is how old the last proof of a set in Dir may be for it to be
	// used. 0 means 24h, or StaleFor if that is shorter. Longer bridges a longer
	// stop of everything; the addresses in it may meanwhile be others'.
	DirMaxAge time.Duration
	// Filter is an expression of Consul's
	// (https://developer.hashicorp.com/consul/api-docs/features/filtering) that
	// Consul itself keeps instances out with, from all services: for what
	// catalog.Selection can't say. Consul compares each instance for each answer. An
	// instance that is in an answer no more is looked for without the filter, once,
	// before it counts as missing. It can't be set beside Dir. Empty means none.
	Filter string
	// Datacenter to ask, another than the agent's own. Empty means the client's.
	Datacenter string
	// PreferAddresses names tagged addresses ("lan", "wan", "lan_ipv6", …): the first
	// that an entry has is used, with its port, in place of the entry's own. Of an
	// entry without an address of its own, the node's count. None means each entry's
	// own address, and "wan" where Datacenter is set.
	PreferAddresses []string
	// Trace is called when something happens. nil means that nothing is.
	Trace *Trace
	// Log gets what no caller asked for: a service lost and found, instances
	// missing and back. nil means that nothing is logged.
	Log *slog.Logger

	// The rest is rarely set.

	// Wait is how long a blocking query waits at Consul for news. 0 means 30s;
	// at most 30s. Longer asks less often; it is also how long a query can be
	// blind after Consul's index went backwards, and how long a connection
	// that swallows packets goes unnoticed.
	Wait time.Duration
	// AuditEvery is about the time between two small questions that prove the set
	// fresh and find what the blocking query missed; an eighth less to a quarter
	// more. 0 means 10s, or a third of StaleFor if that is shorter.
	AuditEvery time.Duration
	// IdleFor is how long a service is followed after it was last in use: see
	// KeepAlive. 0 means 10 minutes.
	IdleFor time.Duration
	// MaxServices bounds the number of services followed at a time. 0 means
	// 1,000. When there are as many, a name without an instance makes room for
	// another: that which was in use longest ago, and is not pinned.
	MaxServices int
	// MaxQueries bounds the number of blocking queries at a time, each of
	// which holds a connection. 0 means 64; at most 183, for Consul refuses
	// more than 200 connections from one address. With more services than
	// this, queries wait for a turn and are shorter, so that each service has
	// one about every 5 seconds.
	MaxQueries int
}

// maxQuick bounds the queries at a time that don't wait for news.
const maxQuick = 16

func (c Config) complete() (Config, error) {
	bad := func(field string, got any, want string) (Config, error) {
		return c, fmt.Errorf("watch: %s is %v; want %s", field, got, want)
	}
	const longest, mostQueries = 30 * time.Second, 199 - maxQuick
	switch {
	case c.Client == nil:
		return c, errors.New("watch: Client is nil; want a client of Consul's API")
	case c.Filter != "" && c.Dir != "":
		return bad("Dir", strconv.Quote(c.Dir)+" beside a Filter", "one of them, since files hold whole sets")
	case c.Wait < 0 || c.Wait > longest:
		return bad("Wait", c.Wait, "0 to 30s")
	case c.AuditEvery < 0:
		return bad("AuditEvery", c.AuditEvery, "0 or more")
	case c.StaleFor < 0:
		return bad("StaleFor", c.StaleFor, "0 or more")
	case c.IdleFor < 0:
		return bad("IdleFor", c.IdleFor, "0 or more")
	case c.DirMaxAge < 0:
		return bad("DirMaxAge", c.DirMaxAge, "0 or more")
	case c.MaxServices < 0:
		return bad("MaxServices", c.MaxServices, "0 or more")
	case slices.Contains(c.PreferAddresses, ""):
		return bad("PreferAddresses", fmt.Sprintf("%q", c.PreferAddresses), `names such as "wan"`)
	case c.MaxQueries < 0 || c.MaxQueries > mostQueries:
		return bad("MaxQueries", c.MaxQueries, fmt.Sprintf("0 to %d", mostQueries))
	}
	audit := 10 * time.Second
	if c.StaleFor > 0 {
		audit = min(audit, c.StaleFor/3)
	}
	c.PreferAddresses = slices.Clone(c.PreferAddresses)
	if c.PreferAddresses == nil && c.Datacenter != "" {
		c.PreferAddresses = []string{"wan"}
	}
	c.Wait = cmp.Or(c.Wait, longest)
	c.AuditEvery = max(cmp.Or(c.AuditEvery, audit), time.Millisecond)
	c.MissingFor = cmp.Or(c.MissingFor, 30*time.Second)
	c.IdleFor = cmp.Or(c.IdleFor, 10*time.Minute)
	c.DirMaxAge = cmp.Or(c.DirMaxAge, 24*time.Hour)
	if c.StaleFor > 0 {
		c.DirMaxAge = min(c.DirMaxAge, c.StaleFor)
	}
	c.MaxServices = cmp.Or(c.MaxServices, 1000)
	c.MaxQueries = cmp.Or(c.MaxQueries, 64)
	c.Trace = cmp.Or(c.Trace, &Trace{})
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return c, nil
}

// Trace has a function for each thing that happens; nil ones are skipped. They
// are called outside of every lock, by the goroutines that follow the service:
// they must be quick, must not close the Watcher, and may run at the same time
// for different services, as Asked may for one.
type Trace struct {
	// Changed is called with each new snapshot that is in use.
	Changed func(s *catalog.Snapshot)
	// Failed is called when a query failed, an answer was not believed, or a set
	// went stale.
	Failed func(service string, err error)
	// Refused is called when an entry can't be used and was dropped: once for each
	// change of what is wrong with it, not for each answer.
	Refused func(service string, err *catalog.InvalidError)
	// Missing is called when an instance vanished and is kept until its
	// MissingUntil.
	Missing func(service string, i catalog.Instance)
	// Forgot is called when a service is followed no more: it was not in use, or
	// had no instance and made room for another.
	Forgot func(service string)
	// Regressed is called for an index below the last one that was believed:
	// Consul lost its catalog, or a snapshot of it was restored. An entry of one's
	// own may be gone with it.
	Regressed func(service string)
	// Recovered is called at the end of trouble: Consul has given an answer that
	// proves the set, for the first time after Failed.
	Recovered func(service string)
	// Answered is called for each answer with a service's instances that was believed:
	// changed says whether it brought a new set.
	Answered func(service string, changed bool)
	// Asked is called for each question to Consul when it is sent. op says what for:
	// fetch (to begin anew), block (held until there is news), confirm (the leader's
	// word), whole (without the filter), audit (the index alone), scan (an audit that
	// says what the token may see), token (what the token is).
	Asked func(op string)
}

func (t *Trace) changed(s *catalog.Snapshot) {
	if t.Changed != nil && s != nil {
		t.Changed(s)
	}
}

func (t *Trace) failed(service string, err error) {
	if t.Failed != nil {
		t.Failed(service, err)
	}
}

func (t *Trace) refused(service string, err *catalog.InvalidError) {
	if t.Refused != nil {
		t.Refused(service, err)
	}
}

func (t *Trace) missing(service string, i catalog.Instance) {
	if t.Missing != nil {
		t.Missing(service, i)
	}
}

func (t *Trace) forgot(service string) {
	if t.Forgot != nil {
		t.Forgot(service)
	}
}

func (t *Trace) regressed(service string) {
	if t.Regressed != nil {
		t.Regressed(service)
	}
}

func (t *Trace) recovered(service string) {
	if t.Recovered != nil {
		t.Recovered(service)
	}
}

func (t *Trace) answered(service string, changed bool) {
	if t.Answered != nil {
		t.Answered(service, changed)
	}
}

func (t *Trace) asked(op string) {
	if t.Asked != nil {
		t.Asked(op)
	}
}
