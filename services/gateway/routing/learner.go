package routing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/pause"
)

// Catalog is where a Learner learns from. A *discovery.Mesh is one.
type Catalog interface {
	FollowServices(ctx context.Context, told func(services map[string][]string, err error)) error
	FollowKey(ctx context.Context, key string, told func(value []byte, index uint64, err error)) error
	WriteKey(ctx context.Context, key string, value []byte, index uint64) (written bool, err error)
}

// Config is what a Learner is made of.
type Config struct {
	// Catalog to learn from. Required.
	Catalog Catalog
	// Source of the instances, whatever they speak. Required.
	Source catalog.Source
	// Key of the document in Consul's KV in which the owners of routes stand.
	// Gateways that pin different routes need different ones. Empty means
	// rollcall/gateway/owners.
	Key string
	// Pinned routes, which no claim gets anything of.
	Pinned []Route
	// Self is the gateway's own service, to which nothing is routed.
	Self string
	// Log gets conflicts, refused claims and trouble when they begin. Required.
	Log *slog.Logger
}

const (
	// HoldFor is how long a route stays whose service has no instance in the catalog
	// any more, and how long a recorded owner that is not there keeps a route.
	HoldFor = 10 * time.Second

	maxServices  = 200         // marked services that are followed
	keepAlive    = time.Minute // how often a service that is followed is said to be in use
	retryLatest  = time.Second // after a failure to learn of a service
	rebuildEvery = 50 * time.Millisecond
	writeTimeout = 5 * time.Second
	writeEvery   = time.Second // at most
	writeAgain   = time.Minute // after a refusal for want of rights
	shown        = 100         // refusals in a table at most
)

// Learner keeps a Table true to the catalog. Use NewLearner, and Run.
type Learner struct {
	cfg     Config
	table   atomic.Pointer[Table]
	changed chan struct{} // has room for one

	mu       sync.Mutex // guards what follows
	services map[string][]string
	listed   bool  // there was an answer
	listErr  error // the trouble since
	owners   owners
	followed map[string]*followed
	writing  bool

	// What follows is Run's goroutine's.
	running sync.WaitGroup
	told    map[string]bool // what was logged and still holds
	next    time.Time       // when something is to be looked at again; zero: never
}

// followed is a service that is marked.
type followed struct {
	stop   context.CancelFunc
	known  bool // there was an answer
	err    error
	claims claims    // of the latest set that had any instance
	gone   time.Time // since when it has none; zero: it has some
}

// NewLearner returns a Learner that knows nothing so far; an error names the setting
// that is wrong.
func NewLearner(cfg Config) (*Learner, error) {
	switch {
	case cfg.Catalog == nil:
		return nil, errors.New("routing: Catalog is nil; want one to learn from")
	case cfg.Source == nil:
		return nil, errors.New("routing: Source is nil; want one of all instances")
	case cfg.Log == nil:
		return nil, errors.New("routing: Log is nil; want a logger")
	}
	cfg.Key = cmp.Or(cfg.Key, "rollcall/gateway/owners")
	l := &Learner{
		cfg: cfg, changed: make(chan struct{}, 1), followed: map[string]*followed{}, told: map[string]bool{},
		owners: owners{record: map[string]string{}, absent: map[string]time.Time{}},
	}
	l.table.Store(NewTable())
	return l, nil
}

// Table returns the routes as they are now.
func (l *Learner) Table() *Table { return l.table.Load() }

// Ready returns nil when all that can be known at a start is known: the list of
// services, the claims of those that are marked, and the owners, or that they can't be
// had.
func (l *Learner) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.listed && l.listErr != nil:
		return fmt.Errorf("the services of the catalog: %w", l.listErr)
	case !l.listed:
		return errors.New("the services of the catalog: no answer so far")
	case !l.owners.known && l.owners.err == nil:
		return errors.New("the owners of routes: no answer so far")
	}
	for service, f := range l.followed {
		if !f.known && f.err == nil {
			return fmt.Errorf("the routes of %s: no answer so far", service)
		}
	}
	return nil
}

// Run learns until ctx ends, and returns the cause of that, or why it can't begin. Call
// it once.
func (l *Learner) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer l.running.Wait()
	defer cancel(nil)
	l.running.Go(func() {
		cancel(l.cfg.Catalog.FollowServices(ctx, func(services map[string][]string, err error) {
			l.note(func() {
				if l.listErr = err; err == nil {
					l.services, l.listed = services, true
				}
			})
		}))
	})
	l.running.Go(func() {
		cancel(l.cfg.Catalog.FollowKey(ctx, l.cfg.Key, func(value []byte, index uint64, err error) {
			l.note(func() { l.owners.heard(value, index, err) })
		}))
	})
	for {
		l.rebuild(ctx)
		if err := pause.For(ctx, rebuildEvery, nil); err != nil {
			return err
		}
		if err := pause.For(ctx, l.until(), l.changed); err != nil {
			return err
		}
	}
}

// note changes what is known, and has the table made anew.
func (l *Learner) note(change func()) {
	l.mu.Lock()
	change()
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// until returns for how long nothing is to be done without news.
func (l *Learner) until() time.Duration {
	if l.next.IsZero() {
		return time.Hour
	}
	return max(time.Until(l.next), 0)
}

// again has the table made anew at that time, if it is to come.
func (l *Learner) again(at, now time.Time) {
	if at.After(now) && (l.next.IsZero() || at.Before(l.next)) {
		l.next = at
	}
}

// follow learns what one service claims, until ctx ends.
func (l *Learner) follow(ctx context.Context, service string, f *followed) {
	for {
		s, err := l.cfg.Source.Latest(ctx, service)
		l.cfg.Source.KeepAlive(service)
		if ctx.Err() != nil || errors.Is(err, catalog.ErrClosed) {
			return
		}
		rest, news := keepAlive, (<-chan struct{})(nil)
		if err != nil {
			rest = retryLatest
			l.note(func() { f.err = err })
		} else {
			claimed, now := claimsOf(s), time.Now()
			l.note(func() { f.take(claimed, now) })
			news = s.Superseded()
		}
		if pause.For(ctx, rest, news) != nil {
			return
		}
	}
}

// take notes what the instances of the latest set claim. A set without any leaves what
// was known.
func (f *followed) take(c claims, now time.Time) {
	f.known, f.err = true, nil
	switch {
	case c.any:
		f.claims, f.gone = c, time.Time{}
	case f.gone.IsZero():
		f.gone = now
	}
}

// over reports whether a service claims nothing any more.
func (f *followed) over(now time.Time) bool {
	if !f.known {
		return false
	}
	if f.gone.IsZero() {
		return !f.claims.marked
	}
	return !f.claims.marked || now.Sub(f.gone) >= HoldFor
}

// rebuild makes the table anew, if it is to be another one.
func (l *Learner) rebuild(ctx context.Context) {
	now := time.Now()
	l.mu.Lock()
	l.next = time.Time{}
	l.choose(ctx, now)
	b := l.build(now)
	known := l.listed && (l.owners.known || l.owners.err != nil)
	record, index := l.owners.record, l.owners.index
	write := known && l.owners.writable(now) && !l.writing && !maps.Equal(record, b.record)
	l.writing = l.writing || write
	l.mu.Unlock()
	if !known {
		return
	}
	l.tell(ctx, b.table)
	if !reflect.DeepEqual(l.table.Load(), b.table) {
		l.table.Store(b.table)
	}
	if write {
		l.write(ctx, b.record, index)
	}
}

// choose follows the services that are marked, and stops to follow those that claim
// nothing any more. Call it with mu held.
func (l *Learner) choose(ctx context.Context, now time.Time) {
	for service, f := range l.followed {
		if (f.over(now) || !f.known) && !slices.Contains(l.services[service], Tag) {
			f.stop()
			delete(l.followed, service)
		} else if !f.gone.IsZero() {
			l.again(f.gone.Add(HoldFor), now)
		}
	}
	for _, service := range slices.Sorted(maps.Keys(l.services)) {
		if !slices.Contains(l.services[service], Tag) || l.followed[service] != nil || len(l.followed) >= maxServices || catalog.CheckService(service) != nil {
			continue
		}
		following, stop := context.WithCancel(ctx)
		f := &followed{stop: stop}
		l.followed[service] = f
		l.running.Go(func() {
			defer stop()
			l.follow(following, service, f)
		})
	}
}

// built is a table, and the owners that are to be recorded.
type built struct {
	table   *Table
	record  map[string]string
	routes  []Route
	refused []Refusal
}

// build makes a table of what is known. Call it with mu held.
func (l *Learner) build(now time.Time) built {
	b := built{record: map[string]string{}}
	byKey := l.claimed(&b, now)
	var conflicts []Conflict
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		if c := l.assign(&b, key, byKey[key], now); c != nil {
			conflicts = append(conflicts, *c)
		}
	}
	b.record = l.owners.next(b.record, l.left, now)
	for _, since := range l.owners.absent {
		l.again(since.Add(HoldFor), now)
	}
	l.again(l.owners.again, now)
	b.table = NewTable(b.routes...)
	b.table.Conflicts = conflicts
	b.table.Refusals, b.table.Refused = len(b.refused), b.refused[:min(len(b.refused), shown)]
	b.table.Trouble = l.trouble()
	return b
}

// claimed returns what is claimed, by the route's key; those who claim it are in the
// order of their names.
func (l *Learner) claimed(b *built, now time.Time) map[string][]Route {
	for _, service := range slices.Sorted(maps.Keys(l.services)) {
		if slices.Contains(l.services[service], Tag) && l.followed[service] == nil {
			b.refuse(service, "", "it is one too many, or has a name that no service can have; want at most %d services with the tag %s", maxServices, Tag)
		}
	}
	byKey := map[string][]Route{}
	for _, service := range slices.Sorted(maps.Keys(l.followed)) {
		f := l.followed[service]
		if f.err != nil {
			b.refuse(service, "", "its instances are not known: %v", f.err)
		}
		b.refused = append(b.refused, f.claims.refused...)
		switch {
		case service == l.cfg.Self:
			b.refuse(service, "", "it is the gateway itself")
		case !f.over(now):
			for _, r := range f.claims.routes {
				byKey[r.Key()] = append(byKey[r.Key()], r)
			}
		}
	}
	return byKey
}

func (b *built) refuse(service, claim, why string, args ...any) {
	b.refused = append(b.refused, refuse(service, claim, why, args...))
}

// assign gives a route to one of those who claim it. What is returned is nil if it is
// the only one.
func (l *Learner) assign(b *built, key string, claimed []Route, now time.Time) *Conflict {
	route := claimed[0]
	names := make([]string, len(claimed))
	for n, r := range claimed {
		names[n] = r.Service
	}
	if len(b.record) >= maxOwners {
		b.refuse(names[0], key, "it is one too many; want at most %d routes", maxOwners)
		return nil
	}
	// What the settings forbid is recorded all the same: another gateway may have
	// other settings, and both would write in turns.
	owner := l.owners.of(key, names, l.table.Load().byHost[route.Host][route.Prefix].Service, l.left, now)
	b.record[key] = owner
	if why := l.forbidden(route); why != "" {
		for _, name := range names {
			b.refuse(name, key, "%s", why)
		}
		return nil
	}
	if at := slices.Index(names, owner); at >= 0 {
		route = claimed[at]
	}
	route.Service = owner
	b.routes = append(b.routes, route)
	if len(names) == 1 && owner == names[0] {
		return nil
	}
	return &Conflict{Route: key, Owner: owner, Claimants: names}
}

// left reports whether a service that does not claim a route is there, so that it does
// not want it. Call it with mu held.
func (l *Learner) left(service string) bool {
	if f, ok := l.followed[service]; ok {
		return f.known && f.gone.IsZero()
	}
	_, ok := l.services[service]
	return l.listed && ok
}

// forbidden says why nobody may have a route; empty: it is free.
func (l *Learner) forbidden(claim Route) string {
	for _, pinned := range l.cfg.Pinned {
		if covers(pinned, claim) {
			return fmt.Sprintf("the gateway's settings have %s for %s", pinned.Key(), pinned.Service)
		}
	}
	return ""
}

// trouble says what keeps the table from being up to date. Call it with mu held.
func (l *Learner) trouble() []Trouble {
	var trouble []Trouble
	if l.listErr != nil {
		trouble = append(trouble, Trouble{"the services of the catalog", l.listErr.Error()})
	}
	switch what := "the owners of routes, in the key " + l.cfg.Key; {
	case l.owners.err != nil:
		trouble = append(trouble, Trouble{what, l.owners.err.Error()})
	case l.owners.denied:
		trouble = append(trouble, Trouble{what, "they may not be written; want key:write. A route that several services claim and none owns goes to the one whose name sorts first"})
	}
	return trouble
}

// write records the owners beside everything else. Who was slower than another gateway
// hears of the other's document by FollowKey.
func (l *Learner) write(ctx context.Context, record map[string]string, index uint64) {
	l.running.Go(func() {
		asking, cancel := context.WithTimeout(ctx, writeTimeout)
		written, err := l.cfg.Catalog.WriteKey(asking, l.cfg.Key, writeOwners(record), index)
		cancel()
		if ctx.Err() != nil {
			return
		}
		l.note(func() {
			l.owners.denied = errors.Is(err, discovery.ErrDenied)
			l.owners.again = time.Now().Add(writeEvery)
			if l.owners.denied {
				l.owners.again = time.Now().Add(writeAgain)
			}
			if l.writing = false; written && l.owners.index == index {
				l.owners.record = record // its index is heard soon; until then no write succeeds
			}
		})
	})
}

// tell logs what has begun since the last table.
func (l *Learner) tell(ctx context.Context, t *Table) {
	holds := map[string]bool{}
	begun := func(what ...string) bool {
		line := strings.Join(what, " ")
		holds[line] = true
		return !l.told[line]
	}
	for _, c := range t.Conflicts {
		if begun("conflict", c.Route, c.Owner, fmt.Sprint(c.Claimants)) {
			l.cfg.Log.WarnContext(ctx, "several services claim one route", "route", c.Route, "owner", c.Owner, "claimants", c.Claimants)
		}
	}
	for _, r := range t.Refused {
		if begun("refused", r.Service, r.Claim) { // its error may be another one each time
			l.cfg.Log.WarnContext(ctx, "a route is refused", "peer", r.Service, "claim", r.Claim, "why", r.Why)
		}
	}
	for _, trouble := range t.Trouble {
		if begun("trouble", trouble.With) { // as above
			l.cfg.Log.WarnContext(ctx, "trouble with routes", "with", trouble.With, "error", trouble.Error)
		}
	}
	l.told = holds
}
