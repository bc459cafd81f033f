// Package doctor looks for what is wrong between a process and the others: Consul,
// its agent, its rights, what is registered, and whether that answers. Each finding
// that is not well has a remedy.
//
// [Examine] changes nothing. It asks Consul some questions, makes a connection to each
// registered address and sends one GET / to those that speak HTTP, all bounded in
// number and time. It sees the addresses from where it runs: what it can't reach, others
// may.
//
// Consul has no time of when a check turned critical, so nothing is said of for how
// long.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// Level is how a finding is.
type Level int

// The levels, from the best to the worst. A Note is worth knowing, and may be meant so;
// a Warning may be; a Failure is none that anybody wants.
const (
	OK Level = iota
	Note
	Warning
	Failure
)

// String returns the level as reports show it.
func (l Level) String() string {
	switch l {
	case OK:
		return "ok"
	case Note:
		return "note"
	case Warning:
		return "warn"
	case Failure:
		return "fail"
	}
	return "level(" + strconv.Itoa(int(l)) + ")"
}

// MarshalText lets reports show the level by its name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is what one question came to.
type Finding struct {
	// Check is the question: one of Checks.
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Says is what was found, in one line.
	Says string `json:"says"`
	// Remedy is what to do; empty if it is well.
	Remedy string `json:"remedy,omitempty"`
}

// The questions.
const (
	checkConsul     = "consul"
	checkLeader     = "leader"
	checkAgent      = "agent"
	checkAgents     = "agents"
	checkVersion    = "version"
	checkRights     = "rights"
	checkServices   = "services"
	checkIDs        = "ids"
	checkGhosts     = "ghosts"
	checkLoopback   = "loopback"
	checkVersions   = "versions"
	checkAddresses  = "addresses"
	checkDNS        = "dns"
	checkPrometheus = "prometheus"
)

// Checks lists the questions, in the order in which they are asked.
var Checks = [...]string{
	checkConsul, checkLeader, checkAgent, checkVersion, checkAgents, checkServices, checkRights, checkIDs,
	checkGhosts, checkLoopback, checkVersions, checkAddresses, checkDNS, checkPrometheus,
}

// Config says what to look at.
type Config struct {
	// Client of Consul; required.
	Client *api.Client
	// Address is where Client goes to, as a person may write it.
	Address string
	// HostPort is the same as host:port; empty for a Unix socket.
	HostPort string
	// Fresh returns a client with connections of its own, and what closes them. nil
	// means that it is not asked whether the address leads to several agents.
	Fresh func() (client *api.Client, closeIdle func(), err error)
	// Services to look at. nil means all that the token may see, but for Consul's own.
	Services []string
	// DNS is host:port of Consul's DNS. Empty means where the agent says it is, else
	// port 8600 of Consul's host; that it does not answer there is no more than a note.
	DNS string
	// Prometheus is its URL. Empty means the instance of the service prometheus in
	// the catalog, if there is one.
	Prometheus string
	// Tell is told each finding as it is made. nil means that Examine's result is
	// enough.
	Tell func(Finding)
}

const (
	// askLimit bounds each question to Consul.
	askLimit = 10 * time.Second
	// lookLimit bounds each step of a look at an address.
	lookLimit = 2 * time.Second
	// parallel is how many services are read, or addresses looked at, at a time.
	parallel = 16
	// mostServices and mostInstances bound the work.
	mostServices, mostInstances = 500, 1000
)

// examination is what Examine knows so far.
type examination struct {
	cfg      Config
	findings []Finding
	agent    agent
	names    []string // of the services that the token may see, but for Consul's own
	services []string // to look at
	entries  []*api.ServiceEntry
	// What Consul left out for want of rights: services out of its list, and instances of
	// some of those to look at.
	unlisted bool
	hidden   []string
}

// Examine asks all questions that can be asked, and returns what it found. Without a
// Consul that answers, or a leader, nothing can be said of what is registered.
func Examine(ctx context.Context, cfg Config) []Finding {
	x := &examination{cfg: cfg}
	answers, led := x.askConsul(ctx)
	if answers {
		x.askAgent(ctx)
		x.askAgents(ctx)
	}
	if !led {
		return x.findings
	}
	if err := x.readServices(ctx); err != nil {
		x.found(Failure, checkServices, howToRead(err), "the catalog can't be read: %s", why(err))
		return x.findings
	}
	x.judgeServices(x.askRights(ctx))
	if len(x.entries) == 0 {
		return x.findings
	}
	x.judgeIDs()
	x.judgeGhosts()
	x.judgeLoopback()
	x.judgeVersions()
	x.lookAtAddresses(ctx)
	x.askDNS(ctx)
	x.askPrometheus(ctx)
	return x.findings
}

// Worst returns the worst level of the findings.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		worst = max(worst, f.Level)
	}
	return worst
}

// NoConsul reports whether Consul could not be asked at all.
func NoConsul(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Check == checkConsul && f.Level == Failure })
}

func (x *examination) found(level Level, check, remedy, format string, args ...any) {
	f := Finding{Check: check, Level: level, Says: fmt.Sprintf(format, args...), Remedy: remedy}
	x.findings = append(x.findings, f)
	if x.cfg.Tell != nil {
		x.cfg.Tell(f)
	}
}

// well says so if the question has found nothing else.
func (x *examination) well(check, format string, args ...any) {
	if !slices.ContainsFunc(x.findings, func(f Finding) bool { return f.Check == check && f.Level > Note }) {
		x.found(OK, check, "", format, args...)
	}
}

// query returns the options of a question, and what to call when it was answered.
func query(ctx context.Context) (*api.QueryOptions, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	return (&api.QueryOptions{}).WithContext(ctx), cancel
}

// askConsul asks whether Consul answers and has a leader.
func (x *examination) askConsul(ctx context.Context) (answers, led bool) {
	q, cancel := query(ctx)
	defer cancel()
	began := time.Now()
	leader, err := x.cfg.Client.Status().LeaderWithQueryOptions(q)
	took := time.Since(began)
	err = consul.Clip(err)
	code := consul.StatusCode(err)
	if err != nil && code < http.StatusInternalServerError {
		x.found(Failure, checkConsul, howToReach(err), "Consul can't be asked at %s: %s", x.cfg.Address, why(err))
		return false, false
	}
	x.found(OK, checkConsul, "", "answers at %s in %s", x.cfg.Address, took.Round(100*time.Microsecond))
	switch {
	case err != nil:
		x.found(Failure, checkLeader, howToElect, "the agent can't ask the servers for their leader: %s", why(err))
	case leader == "":
		x.found(Failure, checkLeader, howToElect, "the servers have no leader: nothing can be registered, and what is read may be old")
	default:
		x.found(OK, checkLeader, "", "it is %s", leader)
	}
	return true, err == nil && leader != ""
}

const howToElect = "more than half of the servers must run and reach each other: see their logs, and `consul operator raft list-peers -stale=true`"

// howToReach is the remedy of a Consul that does not answer as one.
func howToReach(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "HTTP response to HTTPS client"):
		return "it speaks plain HTTP there: take https:// out of CONSUL_HTTP_ADDR, and CONSUL_HTTP_SSL away"
	case strings.Contains(text, "HTTP request to an HTTPS server"):
		return "it speaks HTTPS there: CONSUL_HTTP_ADDR=https://…, with its CA in CONSUL_CACERT"
	case strings.Contains(text, "certificate") || strings.Contains(text, "tls:"):
		return "the two do not trust each other: CONSUL_CACERT is the CA of Consul's certificate; CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY are ours, where it asks for one; CONSUL_TLS_SERVER_NAME is the name in its own"
	case consul.StatusCode(err) != 0:
		return "what answers there is no Consul, or something before it: CONSUL_HTTP_ADDR is its address"
	case consul.Unreachable(err):
		return "start Consul there, or set CONSUL_HTTP_ADDR to where it is; between two containers, localhost is each one's own"
	}
	return "what answers there is no Consul: CONSUL_HTTP_ADDR is its address"
}

// readServices reads the services to look at, and their instances.
func (x *examination) readServices(ctx context.Context) error {
	q, cancel := query(ctx)
	defer cancel()
	all, meta, err := consul.CatalogServices(x.cfg.Client, q)
	if err != nil {
		return err
	}
	delete(all, "consul")
	x.names, x.unlisted = slices.Sorted(maps.Keys(all)), meta.ResultsFilteredByACLs
	x.services = x.names
	if x.cfg.Services != nil {
		x.services = slices.Compact(slices.Sorted(slices.Values(x.cfg.Services)))
	}
	if len(x.services) > mostServices {
		x.found(Note, checkServices, "name the services to look at", "there are %d services; the first %d are looked at", len(x.services), mostServices)
		x.services = x.services[:mostServices]
	}
	sets := make([][]*api.ServiceEntry, len(x.services))
	errs := make([]error, len(x.services))
	hidden := make([]bool, len(x.services))
	each(len(x.services), func(n int) {
		sets[n], hidden[n], errs[n] = x.readInstances(ctx, x.services[n])
	})
	for n, service := range x.services {
		x.entries = append(x.entries, sets[n]...)
		if hidden[n] {
			x.hidden = append(x.hidden, service)
		}
	}
	return cmp.Or(errs...)
}

// readInstances reads those of a service, in the order of ID and node.
func (x *examination) readInstances(ctx context.Context, service string) (entries []*api.ServiceEntry, hidden bool, err error) {
	q, cancel := query(ctx)
	defer cancel()
	entries, meta, err := consul.Instances(x.cfg.Client, service, q)
	if err != nil {
		return nil, false, err
	}
	entries = usable(entries)
	slices.SortFunc(entries, func(a, b *api.ServiceEntry) int {
		return cmp.Or(strings.Compare(a.Service.ID, b.Service.ID), strings.Compare(a.Node.Node, b.Node.Node))
	})
	return entries, meta.ResultsFilteredByACLs, nil
}

// usable leaves out what is no entry: an answer may be of something else than Consul.
func usable(entries []*api.ServiceEntry) []*api.ServiceEntry {
	return slices.DeleteFunc(entries, func(e *api.ServiceEntry) bool { return e.Node == nil || e.Service == nil })
}

// isOf reports whether an entry is of the service: Consul finds names whatever their
// case.
func isOf(e *api.ServiceEntry, service string) bool {
	return strings.EqualFold(e.Service.Service, service)
}

// judgeServices says which services have no instance, unless their want is one of
// rights.
func (x *examination) judgeServices(unreadable []string) {
	for _, service := range x.services {
		has := slices.ContainsFunc(x.entries, func(e *api.ServiceEntry) bool { return isOf(e, service) })
		if !has && !slices.Contains(x.hidden, service) && !slices.Contains(unreadable, service) {
			x.found(Failure, checkServices, howToFind(service, x.names), "%s has no instance", service)
		}
	}
	if len(x.services) == 0 {
		x.found(Warning, checkServices, "start a service that registers here; or is this another Consul than the services', or a token that may read none?", "no service is registered, but for Consul's own")
	}
	x.well(checkServices, "%s, %s", count(len(x.services), "service"), count(len(x.entries), "instance"))
	if len(x.entries) > mostInstances {
		x.found(Note, checkServices, "name the services to look at", "the first %d of %d instances are looked at", mostInstances, len(x.entries))
		x.entries = x.entries[:mostInstances]
	}
}

func howToRead(err error) string {
	if consul.Denied(err) {
		return "the token is none of this Consul's, or may not read: set CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN to one with service:read and node:read"
	}
	return "Consul answers, but not this: see its log, and whether something stands between"
}

// howToFind is the remedy of a service without an instance.
func howToFind(service string, names []string) string {
	const most = 10
	if len(names) == 0 {
		return "start an instance; or is this another Consul than its?"
	}
	if i := slices.IndexFunc(names, func(name string) bool {
		return strings.EqualFold(strings.TrimSuffix(name, "s"), strings.TrimSuffix(service, "s"))
	}); i >= 0 {
		return "is it " + names[i] + "?"
	}
	listed := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		listed += ", …"
	}
	return "start an instance; or has it another name? There are " + listed
}

// each calls do for 0 to n-1, some of them at a time, and waits for all.
func each(n int, do func(n int)) {
	var doing sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i := range n {
		slots <- struct{}{}
		doing.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	doing.Wait()
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
