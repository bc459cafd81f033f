package meshview

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// What a picture holds at most.
const (
	maxServices  = 250
	maxInstances = 2000
	maxSeen      = 10 // of each list of processes
	maxChecks    = 10
	maxTags      = 20
	maxText      = 200 // bytes
	maxName      = 256 // bytes of an ID; the catalog takes no longer ones
	maxOutput    = 512 // bytes of a check's output, while it does not pass
)

func bounded(text string) string { return clip.To(maxText, text) }

// drawing is a picture being made.
type drawing struct {
	now       time.Time
	reports   *reports
	left      int // how many instances there is room for
	services  []*drawn
	at        map[string]*Instance // by key
	processes []process
	known     map[string]int // places of the processes, by their addresses
	edges     map[[2]string]*edge
}

func newDrawing(now time.Time, reports *reports) *drawing {
	return &drawing{
		now: now, reports: reports, left: maxInstances,
		at: map[string]*Instance{}, known: map[string]int{}, edges: map[[2]string]*edge{},
	}
}

// drawn is a service of a picture being made.
type drawn struct {
	name      string
	instances []*Instance
	total     int
	panicBy   []string
	tags      []string
}

// process is one that has given its status.
type process struct {
	service, id string // of its entry
	report      report
}

// edge sums up the calls of a service's instances to another service.
type edge struct {
	Edge
	requests, p50 float64
}

// keyOf returns an instance's key in pictures.
func keyOf(service, id, addr string) string { return service + "/" + id + "@" + addr }

// service puts a service of the catalog into the picture.
func (d *drawing) service(name string, entries []catalog.Entry) {
	s := &drawn{name: name, total: len(entries)}
	d.services = append(d.services, s)
	for _, e := range entries[:min(len(entries), d.left)] {
		d.left--
		s.tags = append(s.tags, e.Tags...)
		i := &Instance{
			Key: keyOf(name, e.ID, e.Addr()), ID: e.ID, Node: e.Node, Addr: e.Addr(), Protocol: e.Protocol(),
			State: e.State.String(), Reason: bounded(e.Reason), Zone: bounded(e.Zone), Version: bounded(e.Meta["version"]),
			Weight: e.Weight, Checks: checksOf(e.Checks),
		}
		d.ask(name, i, e.Instance)
		s.instances = append(s.instances, i)
		d.at[i.Key] = i
	}
	slices.Sort(s.tags)
	s.tags = slices.Compact(s.tags)
	s.tags = s.tags[:min(len(s.tags), maxTags)]
	for n := range s.tags {
		s.tags[n] = bounded(s.tags[n])
	}
}

// checksOf returns the checks, those that don't pass first.
func checksOf(all []catalog.Check) []Check {
	passing := catalog.StatePassing.String() // Consul's word too
	checks := make([]Check, 0, len(all))
	for _, c := range all {
		most := maxOutput
		if c.Status == passing {
			most = maxText
		}
		checks = append(checks, Check{Name: bounded(cmp.Or(c.Name, c.ID)), Status: c.Status, Output: clip.To(most, c.Output)})
	}
	slices.SortStableFunc(checks, func(a, b Check) int {
		rank := func(c Check) int {
			if c.Status == passing {
				return 1
			}
			return 0
		}
		return rank(a) - rank(b)
	})
	return checks[:min(len(checks), maxChecks)]
}

// ask fills in what the instance's own process says, and notes the process.
func (d *drawing) ask(service string, i *Instance, entry catalog.Instance) {
	addr, err := adminOf(entry)
	if err != nil {
		i.Trouble = err.Error()
	}
	if addr == "" {
		return
	}
	r := d.reports.of(addr)
	i.Answered, i.Trouble, i.ClockOff = r.doc != nil, r.trouble, r.clockOff
	if r.doc == nil {
		return
	}
	i.Age = max(d.now.Sub(r.at), time.Millisecond) // an answer has some age
	n, known := d.known[addr]
	switch {
	case !known:
		d.known[addr] = len(d.processes)
		d.processes = append(d.processes, process{service, entry.ID, r})
	case entry.Speaks(catalog.HTTP) && d.processes[n].service == service:
		d.processes[n].id = entry.ID // of its entries, one for each protocol, this is what others know it by
	}
}

// tell puts in what the processes know of others, and send to them.
func (d *drawing) tell() {
	byName := make(map[string]*drawn, len(d.services))
	for _, s := range d.services {
		byName[s.name] = s
	}
	slices.SortFunc(d.processes, func(a, b process) int {
		return cmp.Or(strings.Compare(a.id, b.id), strings.Compare(a.service, b.service))
	})
	for _, p := range d.processes {
		for _, known := range p.report.doc.Services {
			known.Service = bounded(known.Service)
			s := byName[known.Service]
			if s == nil {
				if len(d.services) >= maxServices {
					continue
				}
				// It is called, and the catalog has none of it.
				s = &drawn{name: known.Service}
				byName[s.name], d.services = s, append(d.services, s)
			}
			d.knows(p, s, known)
			d.sends(p, known)
		}
	}
}

// knows puts in what a process knows of a service.
func (d *drawing) knows(p process, s *drawn, known knownService) {
	if known.Panic && len(s.panicBy) < maxSeen {
		s.panicBy = append(s.panicBy, p.id)
	}
	// Both times are by the process's clock.
	age := time.Duration(0)
	if !known.Proven.IsZero() {
		age = max(p.report.doc.At.Sub(known.Proven), 0) + max(d.now.Sub(p.report.at), 0)
	}
	for _, k := range known.Instances {
		i := d.at[keyOf(s.name, k.ID, k.Addr)]
		if i == nil {
			if i = d.missing(s, k); i == nil {
				continue
			}
		}
		i.SeenBy++
		if i.SeenBy <= maxSeen {
			i.Seen = append(i.Seen, Seen{
				By: p.id, Latency: seconds(k.Latency), InFlight: k.InFlight, Connections: k.Connections,
				Health: bounded(k.Health), SnapshotAge: age,
			})
		}
		if x := k.Ejected; x != nil {
			i.OutBy++
			if i.OutBy <= maxSeen {
				i.Out = append(i.Out, Out{
					By: p.id, Reason: bounded(x.Reason), Since: p.report.ours(x.Since), Until: p.report.ours(x.Until),
				})
			}
		}
	}
}

// missing puts in an instance that the catalog lacks; nil if it is none that is used.
func (d *drawing) missing(s *drawn, k knownInstance) *Instance {
	if k.MissingUntil.IsZero() || d.left == 0 || len(k.ID) > maxName || len(k.Addr) > maxName {
		return nil
	}
	d.left--
	i := &Instance{
		Key: keyOf(s.name, k.ID, k.Addr), ID: k.ID, Node: bounded(k.Node), Addr: k.Addr,
		Protocol: cmp.Or(bounded(k.Protocol), catalog.HTTP), State: bounded(k.State), Reason: bounded(k.Reason),
		Zone: bounded(k.Zone), Version: bounded(k.Version), Weight: k.Weight, Missing: true,
	}
	s.instances = append(s.instances, i)
	s.total++
	d.at[i.Key] = i
	return i
}

// sends adds what a process sent to a service. That it follows it is an edge as well.
func (d *drawing) sends(p process, known knownService) {
	if known.Service == p.service {
		return
	}
	key := [2]string{p.service, known.Service}
	e := d.edges[key]
	if e == nil {
		e = &edge{Edge: Edge{From: p.service, To: known.Service}}
		d.edges[key] = e
	}
	c := known.Calls
	requests := count(c.Requests)
	if c.Window < leastWindow || requests == 0 {
		return
	}
	e.Rate += requests / c.Window
	e.Failed += count(c.Failed) / c.Window
	e.Retried += count(c.Retries) / c.Window
	e.requests += requests
	e.p50 += requests * seconds(c.P50).Seconds()
	e.P99 = max(e.P99, seconds(c.P99))
}

// finish returns the services as the picture has them.
func (d *drawing) finish() []Service {
	services := make([]Service, 0, len(d.services))
	for _, s := range d.services {
		one := Service{Name: s.name, Instances: make([]Instance, 0, len(s.instances)), Total: s.total, PanicBy: s.panicBy, Tags: s.tags}
		slices.SortFunc(s.instances, func(a, b *Instance) int {
			return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Key, b.Key))
		})
		for _, i := range s.instances {
			if i.State == catalog.StatePassing.String() && !i.Missing {
				one.Passing++
			}
			one.Instances = append(one.Instances, *i)
		}
		services = append(services, one)
	}
	slices.SortFunc(services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	return services
}

// calls returns the edges as the picture has them.
func (d *drawing) calls() []Edge {
	edges := make([]Edge, 0, len(d.edges))
	for _, e := range d.edges {
		if e.requests > 0 {
			e.P50 = seconds(e.p50 / e.requests)
		}
		edges = append(edges, e.Edge)
	}
	slices.SortFunc(edges, func(a, b Edge) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	return edges
}
