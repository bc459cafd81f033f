package registration

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

const (
	// callTimeout bounds each call: the API client has no limit of its own.
	callTimeout = 5 * time.Second
	// unseenAfter is how long an entry may stay out of the catalog after Consul
	// took it, before it is registered anew.
	unseenAfter = 5 * time.Second
	// mendPause is the time between two registrations whose entries vanished:
	// somebody deregisters what we register, and must not be met with a race.
	mendPause = time.Second
	// Looking for what was just written begins soon and slows down.
	lookSoonest = 10 * time.Millisecond
	lookSlowest = 500 * time.Millisecond
	// lookSpacing is the least time between two looks that somebody asked for.
	lookSpacing = 100 * time.Millisecond
	// idle is for ever, as far as a timer is concerned.
	idle = time.Hour
)

// life is what the instance's goroutine knows. Nobody else touches it.
type life struct {
	*Registered

	// written: Consul took the entry as it should be, as far as we know.
	// mayExist: an entry of ours may be there, written or not.
	written, mayExist bool
	writtenAt         time.Time
	host, node        string  // advertised, and Consul's node that holds it ("" is unknown)
	maintenance       *string // the reason of a maintenance mode that a mend must put back

	told   word      // what the check says by now; zero if unknown
	beatAt time.Time // next beat
	lookAt time.Time // next look
	looks  int       // looks in vain at what was written
	inView bool      // the last look found the entry as it should be

	lookedAt    time.Time // when the last look was answered
	pulseAt     time.Time // next pulse, while in view
	own         question  // held open at the agent
	rival       rivalry
	nodeChecked bool // warnOfNode has had its say

	agent  backoff // after calls that the agent answers itself
	lookup backoff // after readings of the catalog
	unsure bool    // whether the cluster has a leader
	warned bool    // this outage is logged

	draining  bool
	settleAt  time.Time // end of the present settle window; zero outside of one
	settleEnd time.Time // end of all of them
	arrivals  uint64    // at the start of the window
}

func newLife(r *Registered) *life {
	return &life{Registered: r, unsure: true, own: question{answers: make(chan heldAnswer, 1)}}
}

// run is the instance's life. all ends when Close runs out of time, stay when
// Close is called, calm when Drain is.
func (l *life) run(all, stay, calm context.Context) {
	defer close(l.ended)
	defer l.endDrain()
	defer l.letGo()
	drain := calm.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stay.Done():
		case <-drain:
		case <-l.refresh:
			l.beatAt = time.Now()
		case <-l.lookNow:
			l.doubt()
		case a := <-l.own.answers:
			l.heard(a)
		case <-timer.C:
		}
		if stay.Err() != nil {
			l.letGo()
			l.leave(all)
			return
		}
		if !l.draining && calm.Err() != nil {
			drain = nil
			l.beginDrain()
		}
		if l.draining {
			l.act(stay, all)
		} else {
			l.act(calm, all)
		}
		l.hold(stay)
		timer.Reset(time.Until(l.next()))
	}
}

// act does what is due: one thing, so that whoever asks meanwhile waits for no
// more than that.
func (l *life) act(reads, writes context.Context) {
	now := time.Now()
	if l.draining && !l.mayExist {
		l.endDrain() // nobody can know the instance
		return
	}
	want := l.word()
	beatDue := l.written && (!now.Before(l.beatAt) || want.status != l.told.status)
	lookDue := !now.Before(l.lookAt) && !now.Before(l.lookup.until)
	switch {
	case l.settling():
		l.settle(now)
		if l.settling() && beatDue && !now.Before(l.agent.until) {
			ctx, cancel := context.WithDeadline(writes, l.settleAt)
			l.beat(ctx, want)
			cancel()
		}
	case now.Before(l.agent.until):
	case beatDue:
		l.beat(writes, want)
	case l.unsure && (lookDue || !l.written):
		l.askForLeader(reads)
	case !l.written:
		l.mend(reads, writes, want)
	case lookDue:
		l.look(reads)
	case l.watching() && !now.Before(l.pulseAt):
		l.pulse(reads)
	}
}

// next returns when act has something to do again.
func (l *life) next() time.Time {
	switch {
	case l.draining && !l.mayExist:
		return time.Now().Add(idle)
	case l.settling() && l.written:
		return earlier(l.settleAt, later(l.beatAt, l.agent.until))
	case l.settling():
		return l.settleAt
	case !l.written:
		return l.agent.until
	}
	due := earlier(l.beatAt, later(l.lookAt, l.lookup.until))
	if !l.watching() {
		return later(l.agent.until, due)
	}
	due = later(l.agent.until, earlier(due, l.pulseAt))
	if !l.own.open {
		due = earlier(due, l.own.wait.until)
	}
	return due
}

// watching reports whether the entry is where it should be, and to be kept there.
func (l *life) watching() bool { return l.inView && !l.draining }

// call does one exchange with Consul, bounded by callTimeout.
func (l *life) call(ctx context.Context, op string, do func(q *api.QueryOptions) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := consul.Clip(do((&api.QueryOptions{}).WithContext(ctx)))
	if f := l.cfg.Trace.Attempted; f != nil {
		f(l.cfg.Service, l.cfg.ID, op, err)
	}
	return err
}

// vanished notes that the entry must be written anew, and why.
func (l *life) vanished(why string) {
	l.written, l.inView = false, false
	l.told = word{}
	l.letGo()
	l.enter(StateAdrift, why)
	if since := time.Since(l.writtenAt); since < mendPause {
		l.agent.hold(mendPause - since)
	}
}

// enter notes the state and why it is so. Where the state does not lead there it
// stays: only what was registered goes adrift, and what is draining or gone is
// never registered again.
func (l *life) enter(to State, why string) {
	last := l.Status()
	if to != last.State && !last.State.leadsTo(to) {
		if to == StateRegistered {
			return
		}
		to = last.State
	}
	if to == last.State {
		l.status.Store(&Status{State: to, Why: why, Since: last.Since})
		return
	}
	l.status.Store(&Status{State: to, Why: why, Since: time.Now()})
	l.cfg.Log.Info("registration changed", "service", l.cfg.Service, "id", l.cfg.ID, "from", last.State.String(), "to", to.String(), "why", why)
	if f := l.cfg.Trace.Changed; f != nil {
		f(l.cfg.Service, l.cfg.ID, last.State, to, why)
	}
}

// jitter spreads d by a fifth to either side, so that instances that started
// together do not ask together.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
