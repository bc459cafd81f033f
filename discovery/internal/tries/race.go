package tries

import (
	"errors"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// Why a try was ended by its Call.
var (
	ErrSilent = errors.New("no response within TryTimeout")
	ErrOutrun = errors.New("another try was answered first")
)

// lane is a row of tries beside those of the caller's goroutine. It runs in the
// goroutine of the timer that began it, and join waits for its end.
type lane[A Attempt] struct {
	done    chan struct{}
	current A // guarded by the Call's mutex
	last    A // the latest that ended, and was not discarded; read after done
}

// Impatient is called when a try has had its patience without an answer. If another
// instance is in use and the budget pays, one is tried beside it; a request that
// changes something, and may be done again only when the first has ended, ends it
// for that.
func (c *Call[A]) Impatient(a A) {
	t := a.Base()
	c.mu.Lock()
	if t.ended || c.over || c.beside != nil && !c.beside.over() || c.count() > c.Rules.MaxRetries {
		c.mu.Unlock()
		return
	}
	inUse, _ := t.Balancer.Left(balancer.Request{Now: time.Now(), Tried: c.tried})
	if !inUse || !c.spend() {
		c.mu.Unlock()
		return
	}
	t.Impatient.Store(true)
	if c.Group != outcome.Safe {
		t.paid = true
		t.Cancel(ErrSilent)
		c.mu.Unlock()
		return
	}
	l := &lane[A]{done: make(chan struct{})}
	before := c.beside
	c.beside = l
	c.Raced.Store(true)
	if c.quit == nil {
		c.quit = make(chan struct{})
	}
	c.mu.Unlock()
	var none A
	if before != nil && before.last != none {
		before.last.Discard()
	}
	c.runBeside(l)
}

func (l *lane[A]) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// runBeside makes the lane's tries.
func (c *Call[A]) runBeside(l *lane[A]) {
	defer close(l.done)
	var none A
	for {
		a, _, err := c.Sender.Begin(true)
		if err != nil {
			return
		}
		a.Send()
		l.last = a
		if a.Base().Code == outcome.OK && c.claim(a) {
			return
		}
		wait, again := c.again(a)
		if !again {
			return
		}
		a.Discard()
		l.last = none
		c.pause(wait)
	}
}

// claim makes a try the one whose answer the caller gets, if it is the first, and
// ends the other.
func (c *Call[A]) claim(a A) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var none A
	if c.winner != none {
		return false
	}
	c.winner = a
	c.stop()
	c.endBut(a)
	return true
}

// stop says that no try begins any more. Call it with the mutex held.
func (c *Call[A]) stop() {
	if !c.over && c.quit != nil {
		close(c.quit)
	}
	c.over = true
}

// endBut ends the tries that run, but for one. Call it with the mutex held.
func (c *Call[A]) endBut(a A) {
	var none A
	running := [2]A{c.current}
	if c.beside != nil {
		running[1] = c.beside.current
	}
	for _, other := range running {
		if other != none && other != a && !other.Base().ended {
			other.Base().Cancel(ErrOutrun)
		}
	}
}

// join waits for the tries beside the caller's, whose last has ended, and returns
// the last of theirs. They may still be answered well, for as long as patience
// lasts.
func (c *Call[A]) join(last A) A {
	var none A
	c.mu.Lock()
	l := c.beside
	if l == nil {
		c.stop()
		c.mu.Unlock()
		return none
	}
	wait := time.Duration(0)
	if c.winner == none && l.current != none {
		wait = c.Rules.Patience - time.Since(l.current.Base().Start)
	}
	c.mu.Unlock()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-l.done:
		case <-timer.C:
		case <-c.Ctx.Done():
		}
	}
	c.mu.Lock()
	c.stop()
	if c.winner == none {
		c.endBut(last)
	}
	c.mu.Unlock()
	<-l.done
	return l.last
}
