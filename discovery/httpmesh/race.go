package httpmesh

import (
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// lane is a row of tries beside those of the caller's goroutine. It runs in the
// goroutine of the timer that began it, and join waits for its end.
type lane struct {
	done    chan struct{}
	current *attempt // guarded by the exchange's mutex
	last    *attempt // the latest that ended, and was not discarded; read after done
}

// mayTry reports whether TryTimeout holds for the request at all: it must be one
// that can be sent again whatever has become of it.
func (x *exchange) mayTry() bool {
	return x.t.cfg.TryTimeout > 0 && !x.body.single() && !x.upgrade && x.repeatable()
}

// impatient is called when a try has had TryTimeout without an answer. If another
// instance is in use and the budget pays, one is tried beside it; a request that
// changes something, and may be done again only when the first has ended, ends it
// for that.
func (x *exchange) impatient(a *attempt) {
	x.mu.Lock()
	if a.ended || x.over || x.beside != nil && !x.beside.over() || x.count() > x.t.cfg.MaxRetries {
		x.mu.Unlock()
		return
	}
	inUse, _ := a.route.balancer.Left(balancer.Request{Now: time.Now(), Tried: x.tried})
	if !inUse || !x.spend() {
		x.mu.Unlock()
		return
	}
	a.impatient.Store(true)
	if x.group != outcome.Safe {
		a.paid = true
		a.cancel(errSilent)
		x.mu.Unlock()
		return
	}
	l := &lane{done: make(chan struct{})}
	before := x.beside
	x.beside, x.raced = l, true
	if x.quit == nil {
		x.quit = make(chan struct{})
	}
	x.mu.Unlock()
	if before != nil && before.last != nil {
		before.last.discard()
	}
	x.runBeside(l)
}

func (l *lane) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func (x *exchange) isRaced() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.raced
}

// runBeside makes the lane's tries.
func (x *exchange) runBeside(l *lane) {
	defer close(l.done)
	for {
		a, _, err := x.begin(l)
		if err != nil {
			return
		}
		a.send()
		l.last = a
		if a.code == outcome.OK && x.claim(a) {
			return
		}
		wait, again := x.again(a)
		if !again {
			return
		}
		a.discard()
		l.last = nil
		x.pause(wait)
	}
}

// claim makes a try the one whose answer the caller gets, if it is the first, and
// ends the other.
func (x *exchange) claim(a *attempt) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.winner != nil {
		return false
	}
	x.winner = a
	x.stop()
	x.endBut(a)
	return true
}

// stop says that no try begins any more. Call it with the mutex held.
func (x *exchange) stop() {
	if !x.over && x.quit != nil {
		close(x.quit)
	}
	x.over = true
}

// endBut ends the tries that run, but for one. Call it with the mutex held.
func (x *exchange) endBut(a *attempt) {
	running := []*attempt{x.current}
	if x.beside != nil {
		running = append(running, x.beside.current)
	}
	for _, other := range running {
		if other != nil && other != a && !other.ended {
			other.cancel(errOutrun)
		}
	}
}

// join waits for the tries beside the caller's, whose last has ended, and returns
// the last of theirs. They may still be answered well, for as long as patience
// lasts.
func (x *exchange) join(last *attempt) *attempt {
	x.mu.Lock()
	l := x.beside
	if l == nil {
		x.stop()
		x.mu.Unlock()
		return nil
	}
	wait := time.Duration(0)
	if x.winner == nil && l.current != nil {
		wait = x.t.patience() - time.Since(l.current.start)
	}
	x.mu.Unlock()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-l.done:
		case <-timer.C:
		case <-x.r.Context().Done():
		}
	}
	x.mu.Lock()
	x.stop()
	if x.winner == nil {
		x.endBut(last)
	}
	x.mu.Unlock()
	<-l.done
	return l.last
}
