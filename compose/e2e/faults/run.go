package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

const (
	before   = 8 * time.Second  // of load without a fault
	after    = 5 * time.Second  // of load when all is well again
	patience = 45 * time.Second // for a fault to be recovered from
	longest  = 8 * time.Minute  // of one row
)

// row is one fault.
type row struct {
	name, title string
	short       bool // in the set that CI runs
	fresh       bool // wants a new fleet, and leaves none
	gets, posts int  // requests a second at the whole load; 0 means usualGets and usualPosts. Negative means none
	peak        int  // requests a second at most, where that is more than the usual load
	unkeyed     bool // its POSTs have no Idempotency-Key
	// prepare is done before the load starts. May be nil.
	prepare func(context.Context, *trial) error
	// fault makes the fault, ends it, and returns when all is well again. It calls start, end and recovered.
	fault func(context.Context, *trial) error
	// restore takes away what Repair does not know of. May be nil.
	restore func(context.Context, *trial) error
}

// notMade says why a fault can't be made on this machine.
type notMade string

func (n notMade) Error() string { return string(n) }

type program struct {
	*rig.Rig
	out    io.Writer
	serial int64
	share  float64 // of the usual load
	serves float64 // GETs a second; 0: was not asked
	stale  bool    // the fleet is not the usual one: the next row needs a new one
}

// trial is one run of a row.
type trial struct {
	*rig.Rig
	m     judge.Measured
	share float64 // of the row's load
	name  string  // of its load: every request's ID begins with it
	load  *traffic.Load
	bases []string
	stop  []func() // done after the row
	proxy *proxy   // before Consul, in the rows that have one

	tokens *tokens         // of the services, in the row that has them
	fork   *fork           // before Consul, in the row that has two agents
	agent  fleet.Container // a client agent, in the rows that have one

	mu   sync.Mutex // guards seen
	seen []scrape
}

// scrape is what the gateway's metrics said.
type scrape struct {
	at time.Time
	rig.Metrics
}

// row runs one.
func (p *program) row(ctx context.Context, w row, n int) judge.Row {
	ctx, cancel := context.WithTimeoutCause(ctx, longest, errors.New("the row took too long"))
	defer cancel()
	r := &trial{Rig: p.Rig, share: p.shareOf(w), m: judge.Measured{Name: w.name, Title: w.title, Run: n, Values: map[string]float64{}}, bases: []string{p.Gateway()}}
	if r.share < p.share {
		r.note("the load was %.1f of the usual, which for this row is up to %d requests a second", r.share, w.peak)
	}
	fail := func(err error) judge.Row {
		why, no := errors.AsType[notMade](err)
		if no {
			return judge.Row{Measured: r.m, Bounds: bounds[w.name], NotMade: string(why)}
		}
		return judge.Row{Measured: r.m, Bounds: bounds[w.name], Void: err.Error()}
	}
	if err := p.Repair(ctx, w.fresh || p.stale); err != nil {
		return fail(fmt.Errorf("bring the fleet to the usual: %w", err))
	}
	p.stale = w.fresh
	defer func() {
		for _, stop := range r.stop {
			stop()
		}
		if w.restore != nil {
			clearing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			if err := w.restore(clearing, r); err != nil {
				fmt.Fprintln(p.out, "restore:", err)
				p.stale = true
			}
		}
	}()
	if w.prepare != nil {
		if err := w.prepare(ctx, r); err != nil {
			return fail(fmt.Errorf("prepare: %w", err))
		}
	}
	if err := r.drive(ctx, w, fmt.Sprintf("%s-%d-%d", w.name, p.serial, n)); err != nil {
		return fail(err)
	}
	return judge.Judge(r.m, bounds[w.name])
}

// drive sends the load while the fault is made.
func (r *trial) drive(ctx context.Context, w row, name string) error {
	user, err := r.newUser(ctx, name)
	if err != nil {
		return err
	}
	cfg := traffic.Config{
		Name: name, Bases: r.bases, User: user, Unkeyed: w.unkeyed,
		Gets: scaled(cmp.Or(w.gets, usualGets), r.share), Posts: scaled(cmp.Or(w.posts, usualPosts), r.share),
	}
	r.name = name
	r.m.Rate = cfg.Gets + cfg.Posts
	r.m.Began = time.Now()
	if r.load, err = traffic.Start(cfg); err != nil {
		return err
	}
	defer r.load.Stop()
	defer r.watching(ctx)()

	if err := rig.Pause(ctx, before); err != nil {
		return err
	}
	if err := w.fault(ctx, r); err != nil {
		return err
	}
	if r.m.Recovered.IsZero() { // it never was: the time after is that after the wait
		r.m.Recovered, r.m.Recover = time.Now(), judge.Unknown
	}
	if err := rig.Pause(ctx, after); err != nil {
		return err
	}
	if r.m.Alerts, err = r.alerts(ctx); err != nil {
		return fmt.Errorf("ask which alerts fired: %w", err)
	}
	r.m.Ended = time.Now()
	r.load.Stop()
	r.m.Samples = r.load.Samples()
	return r.audit(ctx, user, name)
}

// watching scrapes the gateway until the function it returns is called.
func (r *trial) watching(ctx context.Context) (stop func()) {
	ctx, quit := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { r.watch(ctx) })
	return func() { quit(); watcher.Wait() }
}

// watch scrapes the gateway until the context ends.
func (r *trial) watch(ctx context.Context) {
	for rig.Pause(ctx, 100*time.Millisecond) == nil {
		at := time.Now()
		m, err := r.Metrics(ctx, r.GatewayAdmin())
		if err != nil {
			continue // it may be the one that is away
		}
		r.mu.Lock()
		r.seen = append(r.seen, scrape{at, m})
		r.mu.Unlock()
	}
}

func (r *trial) scrapes() []scrape {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clip(r.seen)
}

// alerts are the names of those that have begun to fire since the fault's start, in order.
func (r *trial) alerts(ctx context.Context) ([]string, error) {
	window := max(time.Since(r.m.Start).Round(time.Second), time.Second)
	expr := fmt.Sprintf(`count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[%ds]) unless ALERTS{alertstate="firing"} offset %[1]ds)`, int(window.Seconds()))
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	if err := r.JSON(ctx, r.Prometheus()+"/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		return nil, err
	}
	var names []string
	for _, a := range answer.Data.Result {
		names = append(names, a.Metric["alertname"])
	}
	slices.Sort(names)
	return names, nil
}

// newUser makes the user for whom the row's orders are. Only its ID may be known beforehand.
func (r *trial) newUser(ctx context.Context, name string) (int64, error) {
	a, err := r.Want(ctx, http.MethodPost, r.bases[0]+"/users", map[string]string{"name": name})
	if err != nil {
		return 0, err
	}
	var made struct{ ID int64 }
	err = json.Unmarshal(a.Body, &made)
	if err == nil && made.ID == 0 {
		err = errors.New("id is 0")
	}
	if err != nil {
		return 0, fmt.Errorf("a new user is %.200q; want one with an id: %w", a.Body, err)
	}
	return made.ID, nil
}

// audit compares the orders that are stored with those that were acknowledged.
func (r *trial) audit(ctx context.Context, user int64, name string) error {
	stored, err := r.ordersOf(ctx, user)
	if err != nil {
		return fmt.Errorf("look for the orders: %w", err)
	}
	for item, n := range stored {
		if n > 1 {
			r.m.Twice++
		}
		if !strings.HasPrefix(item, name+"-post-") {
			r.m.Phantom++
		}
	}
	acknowledged := 0
	for i := range r.m.Samples {
		if item := r.m.Samples[i].Item; item != "" {
			acknowledged++
			if stored[item] == 0 {
				r.m.Lost++
			}
		}
	}
	if extra := len(stored) - acknowledged; extra > 0 {
		r.note("%d orders are stored of which the client was not told", extra)
	}
	return nil
}

// ordersOf counts the orders of a user by their item, on all pages. An ID that comes twice counts as an order twice.
func (r *trial) ordersOf(ctx context.Context, user int64) (map[string]int, error) {
	stored := map[string]int{}
	ids := map[int64]bool{}
	next := fmt.Sprintf("/orders/%d", user)
	for next != "" {
		a, err := r.Want(ctx, http.MethodGet, r.bases[0]+next, nil)
		if err != nil {
			return nil, err
		}
		var page []struct {
			ID   int64 `json:"order_id"`
			Item string
		}
		if err := json.Unmarshal(a.Body, &page); err != nil {
			return nil, fmt.Errorf("%w in %.200q", err, a.Body)
		}
		for _, o := range page {
			stored[o.Item]++
			if ids[o.ID] {
				r.m.Twice++
			}
			ids[o.ID] = true
		}
		next = link(a.Header)
	}
	return stored, nil
}

// link is the target of the Link header whose relation is next; "" if there is none.
func link(h http.Header) string {
	for _, l := range h.Values("Link") {
		target, rest, ok := strings.Cut(l, ">")
		if ok && strings.HasPrefix(target, "<") && strings.Contains(rest, `rel="next"`) {
			return target[1:]
		}
	}
	return ""
}

func (r *trial) start() { r.m.Start = time.Now() }
func (r *trial) end()   { r.m.End = time.Now() }

func (r *trial) note(format string, args ...any) {
	r.m.Notes = append(r.m.Notes, fmt.Sprintf(format, args...))
}

// recovered waits until all is well again and notes how long that took from the fault's end on.
func (r *trial) recovered(ctx context.Context, by string, check func(context.Context) error) error {
	r.m.RecoverBy = by
	err := rig.Until(ctx, patience, by, check)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		r.note("not recovered: %v", err)
		return nil
	}
	r.recoveredAt(time.Now())
	return nil
}

func (r *trial) recoveredAt(at time.Time) {
	r.m.Recovered = at
	r.m.Recover = max(0, at.Sub(r.m.End))
}

// noticed waits until the gateway's metrics say that it has noticed.
func (r *trial) noticed(ctx context.Context, by string, check func(rig.Metrics) bool) error {
	r.m.NoticeBy, r.m.Notice = by, judge.Unknown
	err := rig.Until(ctx, 20*time.Second, by, func(ctx context.Context) error {
		for _, s := range r.scrapes() {
			if s.at.After(r.m.Start) && check(s.Metrics) {
				r.m.Notice = s.at.Sub(r.m.Start)
				return nil
			}
		}
		return errors.New("it is not")
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		r.note("%v", err)
	}
	return nil
}

// grown is how much a counter of the gateway grew from the fault's start on.
func (r *trial) grown(name string, labels ...string) float64 {
	var first, last float64
	for _, s := range r.scrapes() {
		if s.at.Before(r.m.Start) {
			first = s.Sum(name, labels...)
		}
		last = s.Sum(name, labels...)
	}
	return last - first
}

// most is the greatest value of a gauge of the gateway from the fault's start on.
func (r *trial) most(name string, labels ...string) float64 {
	most := 0.0
	for _, s := range r.scrapes() {
		if s.at.After(r.m.Start) {
			most = max(most, s.Sum(name, labels...))
		}
	}
	return most
}

// serves is an error unless the instance has answered a request that was sent after a time.
func (r *trial) serves(id string, since time.Time) func(context.Context) error {
	return func(context.Context) error {
		if r.load.Count(func(s *traffic.Sample) bool { return s.ServedBy == id && s.At.After(since) && !s.Failed() }) == 0 {
			return fmt.Errorf("%s has not served", id)
		}
		return nil
	}
}

// hasShare is an error unless an order has given a fifth of the last second's answers.
func (r *trial) hasShare(id string) func(context.Context) error {
	return func(context.Context) error {
		now := time.Now()
		if s := judge.Share(r.load.Samples(), now.Add(-time.Second), now, id); s < 0.2 || now.Sub(r.m.End) < time.Second {
			return fmt.Errorf("its share is %.2f", s)
		}
		return nil
	}
}

// usual is an error unless the catalog is as it should be.
func (r *trial) usual(ctx context.Context) error { return r.Passing(ctx, rig.Usual) }

// one is the n-th running container of a service, with its ID in the catalog.
func (r *trial) one(ctx context.Context, service string, n int) (fleet.Container, string, error) {
	cs, err := r.Running(ctx, service)
	if err != nil {
		return fleet.Container{}, "", err
	}
	if n >= len(cs) {
		return fleet.Container{}, "", fmt.Errorf("%d containers of %s run; want %d", len(cs), service, n+1)
	}
	id, err := r.ID(ctx, cs[n])
	return cs[n], id, err
}

// all does several docker commands, one after another.
func (r *trial) docker(ctx context.Context, args ...string) error {
	_, err := r.Docker(ctx, args...)
	return err
}
