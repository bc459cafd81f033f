package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

type watchCmd struct {
	Services []string      `arg:"" optional:"" name:"service" help:"Services to watch. None: all, those that come later as well."`
	For      time.Duration `placeholder:"10s" help:"How long to watch. 0: until interrupted."`
	Output   string        `short:"o" enum:"table,json" default:"table" help:"Form: ${enum}. json is an object on each line."`
}

// Help is shown by --help.
func (*watchCmd) Help() string {
	return `The first line about a service says what there is ("following"); then come joined, left,
missing (it vanished from Consul, and clients use it for a while still), back, state, weight,
tags and meta. lost and found are of Consul itself. ^C ends it in order, with exit code 0.

Examples:

    rollcall watch
    rollcall watch order user --for 10s -o json`
}

// mostWatched bounds the services that are watched at a time.
const mostWatched = 10_000

// Run watches until its time is over or ctx ends.
func (c *watchCmd) Run(ctx context.Context, s *session) error {
	if c.For < 0 {
		return &exitError{exitUsage, fmt.Errorf("--for is %v; want 0 or more", c.For)}
	}
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	t := newTeller(s, c.Output == "json")
	watcher, err := watch.New(watch.Config{ //nolint:contextcheck // what it begins ends with Close
		Client: s.consul, MaxServices: mostWatched, Log: s.details(ctx),
		Trace: &watch.Trace{Changed: t.changed, Failed: t.failed, Recovered: t.recovered, Refused: t.refused},
	})
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Close() }()
	if len(c.Services) > 0 {
		if err := watcher.Pin(c.Services...); err != nil {
			return &exitError{exitUsage, err}
		}
		<-ctx.Done()
	} else {
		c.all(ctx, s, watcher, t)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil // interrupted: whoever did it has seen what there was
	}
	return t.neverAnswered(ctx)
}

// all watches every service in the catalog, until ctx ends.
func (c *watchCmd) all(ctx context.Context, s *session, watcher *watch.Watcher, t *teller) {
	const catalogItself = "" // as whose trouble that of the list is told
	// Its error says that ctx has ended.
	_ = consul.Follow(ctx, func(q *api.QueryOptions) (map[string][]string, *api.QueryMeta, error) {
		return consul.CatalogServices(s.consul, q)
	}, func(services map[string][]string, _ *api.QueryMeta, err error) {
		if err != nil {
			t.failed(catalogItself, err)
			return
		}
		t.recovered(catalogItself)
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(services)), func(name string) bool { return catalog.CheckService(name) != nil })
		t.expect(names)
		if err := watcher.Pin(names...); err != nil {
			s.warn("%v", err)
		}
	})
}

// event is one line. Its fields stay as they are: others read them.
type event struct {
	At       time.Time `json:"at"`
	Event    string    `json:"event"`
	Service  string    `json:"service,omitempty"`
	Instance *instance `json:"instance,omitempty"`
	From     string    `json:"from,omitempty"`
	To       string    `json:"to,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// text is the event after its time and name.
func (e event) text() string {
	var parts []string
	if e.Service != "" {
		parts = append(parts, e.Service)
	}
	if e.Instance != nil {
		parts = append(parts, e.Instance.ID, e.Instance.Addr)
	}
	if e.From != "" || e.To != "" {
		parts = append(parts, or(e.From)+" -> "+or(e.To))
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	return clean(strings.Join(parts, "  "))
}

// teller prints what changes. Its methods may be called by any number of goroutines.
type teller struct {
	s    *session
	json bool

	mu       sync.Mutex                   // guards what follows, and the order of lines
	last     map[string]*catalog.Snapshot // by service
	listed   bool                         // the first list of all services is there
	known    words                        // services of the first list
	answered bool
	trouble  map[string]error // by service, since the last answer
	lost     time.Time        // since when there is trouble; zero: there is none
}

func newTeller(s *session, json bool) *teller {
	return &teller{s: s, json: json, last: map[string]*catalog.Snapshot{}, known: words{}, trouble: map[string]error{}}
}

// expect notes the services that there are: the instances of one that comes later are
// told as joining.
func (t *teller) expect(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered = true
	if !t.listed {
		t.listed = true
		for _, name := range names {
			t.known.add(name)
		}
	}
}

// changed tells the difference to the set before.
func (t *teller) changed(set *catalog.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answered = true
	last, name := t.last[set.Service()], set.Service()
	t.last[name] = set
	if _, known := t.known[name]; last == nil && (known || !t.listed) {
		l := list(set)
		t.tell(event{Event: "following", Service: name, Detail: fmt.Sprintf("%d of %d ready (%s)", l.Ready, l.Instances, l.health())})
		return
	}
	for _, e := range changes(last, set) {
		t.tell(e)
	}
}

// failed tells that Consul is lost, once until it is found again.
func (t *teller) failed(service string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trouble[service] = err
	if t.lost.IsZero() {
		t.lost = time.Now()
		t.tell(event{Event: "lost", Service: service, Detail: "Consul: " + err.Error()})
	}
}

// recovered tells that Consul is found again, once it is for all services.
func (t *teller) recovered(service string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.trouble, service)
	if len(t.trouble) == 0 && !t.lost.IsZero() {
		t.tell(event{Event: "found", Detail: "Consul, after " + time.Since(t.lost).Round(time.Millisecond).String()})
		t.lost = time.Time{}
	}
}

// refused tells of an entry that no client can use.
func (t *teller) refused(service string, err *catalog.InvalidError) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(event{Event: "refused", Service: service, Detail: err.Error()})
}

// neverAnswered is an error if Consul has not answered once.
func (t *teller) neverAnswered(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.answered {
		return nil
	}
	err := errors.New("no answer so far")
	for _, trouble := range t.trouble {
		err = trouble // any: they have one cause
	}
	return t.s.cannotAsk(ctx, err)
}

// tell prints a line. The caller holds mu.
func (t *teller) tell(e event) {
	e.At = time.Now()
	if t.json {
		if line, err := json.Marshal(e); err == nil { // it is made of what JSON has
			_, _ = t.s.out.Write(append(escaped(line), '\n'))
		}
		return
	}
	const widest = len("following")
	line := painted(t.s, e.Event, strings.Repeat(" ", widest-len(e.Event)+gap)) + e.text()
	_, _ = io.WriteString(t.s.out, e.At.Format("15:04:05.000")+"  "+line+"\n")
}

// changes are the events that lead from one set to the next, in the order of the
// instances. None before is an empty one.
func changes(last, set *catalog.Snapshot) []event {
	before := map[catalog.Key]catalog.Instance{}
	if last != nil {
		for i := range last.All() {
			before[i.Key()] = i
		}
	}
	var all []event
	seen := map[catalog.Key]bool{}
	for i := range set.All() {
		if seen[i.Key()] {
			continue // at two nodes: it is one process
		}
		seen[i.Key()] = true
		was, known := before[i.Key()]
		delete(before, i.Key())
		shown := instanceOf(i)
		about := event{Service: set.Service(), Instance: &shown}
		if !known {
			about.Event, about.Detail = "joined", i.State.String()
			all = append(all, about)
			continue
		}
		all = append(all, changed(about, was, i)...)
	}
	for _, i := range sorted(before) {
		shown := instanceOf(i)
		e := event{Event: "left", Service: set.Service(), Instance: &shown}
		if i.Missing() {
			e.Detail = "it was missing"
		}
		all = append(all, e)
	}
	return all
}

// changed are the events of one instance that stayed. Each is about it.
func changed(about event, was, is catalog.Instance) (all []event) {
	add := func(name, from, to, detail string) {
		e := about
		e.Event, e.From, e.To, e.Detail = name, from, to, detail
		all = append(all, e)
	}
	switch {
	case is.Missing() && !was.Missing():
		add("missing", "", "", "vanished from Consul; in use until "+is.MissingUntil.Format(time.TimeOnly)+" unless it fails")
	case was.Missing() && !is.Missing():
		add("back", "", "", is.State.String())
	}
	if was.State != is.State {
		add("state", was.State.String(), is.State.String(), is.Reason)
	}
	if was.Weight != is.Weight {
		add("weight", strconv.Itoa(was.Weight), strconv.Itoa(is.Weight), "")
	}
	if !slices.Equal(was.Tags, is.Tags) {
		add("tags", join(was.Tags), join(is.Tags), "")
	}
	for _, key := range slices.Sorted(maps.Keys(union(was.Meta, is.Meta))) {
		if was.Meta[key] != is.Meta[key] {
			add("meta", was.Meta[key], is.Meta[key], "Meta "+key)
		}
	}
	return all
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	if all == nil {
		return b
	}
	maps.Copy(all, b)
	return all
}

// sorted returns the instances in the order of their IDs.
func sorted(by map[catalog.Key]catalog.Instance) []catalog.Instance {
	return slices.SortedFunc(maps.Values(by), func(a, b catalog.Instance) int {
		return strings.Compare(a.ID+a.Addr(), b.ID+b.Addr())
	})
}
