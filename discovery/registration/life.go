package registration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

const (
	// unseenAfter is how long an entry or a word may stay out of the catalog after
	// Consul took it, before it is written anew; unheardAfter the same for the word
	// of a drain, which has little time.
	unseenAfter  = 5 * time.Second
	unheardAfter = 500 * time.Millisecond
	// mendPause is the time between two registrations whose entries vanished:
	// what somebody deregisters again and again must not be a race.
	mendPause = time.Second
	// takenPause is the time between two looks at an entry under our ID that is
	// another process's.
	takenPause = 10 * time.Second
)

// never is for ever, as far as a timer is concerned.
func never() time.Time { return time.Now().Add(time.Hour) }

// life is what the instance's goroutine knows; it alone touches it. It compares
// what is wanted (the Config, and the word of the heartbeat check) with what was
// written and with what the catalog has (the agent's sight), and does one repair
// at a time.
type life struct {
	*Registration
	ready    asked[error]
	arrivals asked[uint64]
	draining bool // what is wanted

	written  *written // what Consul took; nil: the entry is to be written
	told     word     // what the heartbeat check says by now; zero: unknown
	toldAt   time.Time
	token    string    // that went with it
	shown    bool      // the catalog had what was written
	heard    bool      // and what was told
	doubted  time.Time // when the agent did not know the check; zero: it does
	taken    bool      // the ID is another process's
	mayExist bool      // an entry of ours may be at one of the nodes
	nodes    map[string]bool
	tags     []string // with EnableTagOverride: as the catalog last had them
	// maintenance is the reason of an operator's, which we took away with the entry
	// and must put back.
	maintenance *string

	beatAt   time.Time // next heartbeat
	writeAt  time.Time // earliest next write
	retry    backoff   // after calls that failed
	warned   bool      // of this trouble
	unproven bool      // warned that what was written is not seen

	stepAt    time.Time // when the present step of the drain began
	settleAt  time.Time // end of the present settle window; zero outside of one
	settleEnd time.Time // end of all of them
	arrived   uint64    // at the start of the window
}

// written is an entry as Consul took it.
type written struct {
	entry *api.AgentServiceRegistration
	token string // sent with it: the agent keeps that for what it tells the servers
	at    time.Time
}

func newLife(r *Registration) *life {
	return &life{
		Registration: r,
		ready:        asked[error]{name: "Ready", f: r.cfg.Ready},
		arrivals:     asked[uint64]{name: "Arrivals", f: r.cfg.Arrivals},
		nodes:        map[string]bool{},
	}
}

// run is the instance's life. all ends when Close runs out of time, stay when
// Close is called, calm when Drain is.
func (l *life) run(all, stay, calm context.Context) {
	defer close(l.ended)
	defer l.endDrain()
	drain, reads := calm.Done(), calm
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stay.Done():
		case <-drain:
		case <-l.refresh:
			l.beatAt = time.Now()
		case <-l.news:
		case <-timer.C:
		}
		if stay.Err() != nil {
			l.leave(all)
			return
		}
		if !l.draining && calm.Err() != nil {
			drain, reads = nil, stay
			l.beginDrain()
		}
		l.observe()
		step, at := l.plan()
		if step != nil && !time.Now().Before(at) {
			step(l, reads, all)
			l.observe()
			_, at = l.plan()
		}
		timer.Reset(time.Until(at))
	}
}

// plan returns what is to be done next, and when. reads and writes are the
// contexts of what may be cut short by Drain and Close, and of what may not.
func (l *life) plan() (step func(l *life, reads, writes context.Context), at time.Time) {
	s := l.agent.sight()
	beat := later(l.beatAt, l.retry.until)
	switch {
	case l.draining && !l.mayExist:
		return nil, never()
	case l.settling():
		if l.written != nil && beat.Before(l.settleAt) {
			return (*life).beatBriefly, beat
		}
		return (*life).settle, l.settleAt
	case l.written == nil && s.err != nil:
		return nil, never() // the agent tells when Consul answers
	case l.written == nil:
		return (*life).write, later(l.writeAt, l.retry.until)
	case s.away:
		return nil, never()
	case s.err != nil:
		return (*life).beatBriefly, beat
	}
	if at := l.rewriteAt(s); at.Before(beat) {
		return (*life).writeAnew, at
	}
	return (*life).beat, beat
}

// rewriteAt returns when what was written is to be written anew for want of proof.
func (l *life) rewriteAt(s *sight) time.Time {
	within := unseenAfter
	if l.draining {
		within = unheardAfter
	}
	switch {
	case s.entries == nil || s.checks == nil || s.filtered:
		return never() // writing would show no more
	case !l.shown:
		return later(l.written.at.Add(unseenAfter), l.retry.until)
	case !l.heard:
		return later(later(l.toldAt.Add(within), l.writeAt), l.retry.until)
	case l.token != l.written.token:
		// The agent tells the servers of the entry with the token that it was
		// registered with, for as long as that is one.
		return later(l.writeAt, l.retry.until)
	}
	return never()
}

// observe compares what was written with what the catalog has.
func (l *life) observe() {
	s := l.agent.sight()
	switch {
	case s.err != nil:
		l.trouble(s.err)
	case l.written == nil:
	case s.entries == nil:
		if s.node == "" && time.Since(l.written.at) > time.Second {
			l.enter(StateRecovering, "written, but not to be looked up: "+errNodeUnreadable.Error(), errNodeUnreadable)
		}
	default:
		l.compare(s)
	}
}

func (l *life) compare(s *sight) {
	said, wrong := l.find(s)
	if wrong == "" && said == "" {
		if s.filtered {
			l.trouble(errNodeUnreadable)
		}
		return // not known
	}
	if wrong != "" {
		if l.shown {
			l.vanished(wrong)
		} else {
			l.enter(StateRecovering, wrong, errNotSeen)
		}
		return
	}
	if l.cfg.Host == "" && loopback(l.written.entry.Address) && l.cfg.ownsAgentOf(s) {
		l.vanished("the agent is on this machine, and known to others as " + s.address)
		return
	}
	l.shown, l.warned = true, false
	if l.cfg.EnableTagOverride {
		l.tags = s.entries[l.cfg.ID].Tags
	}
	why, err := "seen in the catalog", l.cfg.reach(l.written.entry.Address, s)
	if err != nil {
		why += ": " + err.Error()
	}
	select {
	case <-l.seen:
	default:
		close(l.seen)
	}
	if l.retry.refusals < 2 {
		l.enter(StateRegistered, why, err)
	}
	switch arrived := said == l.told.status; {
	case arrived:
		l.heard, l.unproven = true, false
	case l.heard: // the TTL ran out, or an operator changed it
		l.heard, l.beatAt = false, time.Now()
	}
	if !l.doubted.IsZero() && s.met.After(l.doubted) {
		l.beatAt = time.Time{} // at once: does the agent know it now?
	}
	if l.draining && said == api.HealthCritical {
		l.beginSettle()
	}
}

// find returns what the heartbeat check of our entry says in the catalog, or what is
// wrong with the entry; neither if that is not known yet.
func (l *life) find(s *sight) (said, wrong string) {
	if wrong := differs(l.written.entry, s.entries[l.cfg.ID]); wrong != "" {
		return "", wrong
	}
	if s.checks == nil || s.filtered && len(l.written.entry.Checks) > 0 {
		return "", ""
	}
	for _, c := range l.written.entry.Checks {
		if found := s.checks[c.CheckID]; found == nil || found.Name != c.Name {
			return "", fmt.Sprintf("the catalog has the entry without its check %q", c.Name)
		}
	}
	if beat := s.checks[heartbeatCheck(l.cfg.ID)]; beat != nil {
		return beat.Status, ""
	}
	return api.HealthPassing, "" // as far as the heartbeat would say
}

// call does one exchange with the agent.
func (l *life) call(ctx context.Context, op string, do func(q *api.QueryOptions) error) error {
	return l.agent.call(ctx, l.attempted(op), do)
}

// left tells that a step of leaving was made, which began then.
func (l *life) left(step string, began time.Time) {
	if f := l.cfg.Trace.Left; f != nil {
		took := time.Since(began)
		l.calls.do(func() { f(l.cfg.Service, l.cfg.ID, step, took) })
	}
}

func (l *life) attempted(op string) func(error) {
	return func(err error) {
		if f := l.cfg.Trace.Attempted; f != nil {
			l.calls.do(func() { f(l.cfg.Service, l.cfg.ID, op, err) })
		}
	}
}

// withToken has *token set to the token that the context's call sends.
func withToken(ctx context.Context, token *string) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(key string, value []string) {
			if http.CanonicalHeaderKey(key) == "X-Consul-Token" && len(value) > 0 {
				*token = value[0]
			}
		},
	})
}

// vanished notes that the entry is to be written anew, and why.
func (l *life) vanished(why string) {
	if l.written != nil {
		l.writeAt = l.written.at.Add(mendPause)
	}
	l.written, l.told, l.shown, l.heard, l.doubted = nil, word{}, false, false, time.Time{}
	l.enter(StateRecovering, why, errNotSeen)
}

// failed notes that a call did not do what it was to do.
func (l *life) failed(err error) {
	if errors.Is(err, context.Canceled) {
		return // Drain or Close cut it short
	}
	l.retry.failed(err)
	if consul.Unreachable(err) {
		l.agent.Look() // which finds out, and tells
		return
	}
	if l.retry.failures >= 2 || l.Status().State != StateRegistered {
		l.trouble(err)
	}
	if l.retry.failures < 2 || l.warned {
		return
	}
	l.warned = true
	warnOf(l.cfg.Log.With("service", l.cfg.Service, "id", l.cfg.ID), err)
}

// trouble puts what is in the way into the state.
func (l *life) trouble(err error) {
	why := "Consul refuses: "
	switch {
	case errors.Is(err, errNotAsked), errors.Is(err, ErrSeveralAgents), errors.Is(err, ErrIDTaken):
		why = ""
	case errors.Is(err, errNoLeader):
		why = "Consul is not ready: "
	case consul.Unreachable(err):
		why = "Consul does not answer: "
	}
	l.enter(StateRecovering, why+err.Error(), err)
}

// enter notes the state and why it is so. Where the state does not lead there it
// stays: only what was registered can recover, and what is draining or deregistered
// is never registered again.
func (l *life) enter(to State, why string, err error) {
	last := l.Status()
	if to != last.State && !last.State.leadsTo(to) {
		if to == StateRegistered {
			return
		}
		to = last.State
	}
	now := Status{State: to, Why: why, Err: err, Since: last.Since}
	if to == last.State {
		l.status.Store(&now)
		return
	}
	now.Since = time.Now()
	l.status.Store(&now)
	l.cfg.Log.Info("registration changed", "service", l.cfg.Service, "id", l.cfg.ID, "from", last.State.String(), "to", to.String(), "why", why)
	if f := l.cfg.Trace.Changed; f != nil {
		l.calls.do(func() { f(l.cfg.Service, l.cfg.ID, last.State, to, why) })
	}
}

// backoff says when to try again after failures. The two kinds are counted apart:
// a Consul that was away for long and then refuses is asked again soon. One that
// is away is asked twice as often as consul.Backoff has it, within half a second
// at most, for all are to be back within a second of its return.
type backoff struct {
	away, refusing consul.Backoff
	failures       int // in a row
	refusals       int // the last of them, by a Consul that answers
	until          time.Time
}

func (b *backoff) failed(err error) {
	b.failures++
	b.refusals++
	if consul.Unreachable(err) {
		b.refusals = 0
	}
	var wait time.Duration
	switch {
	case errors.Is(err, errNoLeader), errors.Is(err, ErrSeveralAgents):
		wait = b.away.Next(context.DeadlineExceeded) / 2 // is over as suddenly as no connection
	case consul.Unreachable(err):
		wait = b.away.Next(err) / 2
	default:
		wait = b.refusing.Next(err)
	}
	b.until = time.Now().Add(wait)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// errNotSeen is the trouble of an entry that was not seen, or is not any more.
var errNotSeen = errors.New("the entry was not seen in the catalog")
