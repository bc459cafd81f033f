package overload

import (
	"math"
	"slices"
	"sync"
	"time"
)

// phase is what a limit is doing.
//
//	open ──Start reached──▶ draining ──few left──▶ measuring ──enough seen──▶ judging
//	 ▲                         ▲                                                │ │
//	 │                         └──────── still over, least latency is old ──────┘ │
//	 └──────────────────────── the limit was not reached for a second ────────────┘
type phase int

const (
	open      phase = iota // nobody is shed and nothing is judged
	draining               // too many are at work; nobody is let in until few are
	measuring              // few are let in, to see the least latency
	judging                // the limit follows the gradient
)

// limit is one limit. Its methods are told the time.
type limit struct {
	cfg Config

	mu        sync.Mutex // guards what follows
	phase     phase
	limit     float64
	atWork    int
	era       uint64          // counts the changes of the limit
	latencies []time.Duration // since the era began, kept at most
	began     time.Time       // of the phase; in judging, of the window
	full      bool            // the limit was reached in this window
	lastFull  time.Time       // when it was reached last
	peak      int             // most at work since then
	least     time.Duration   // the least latency; 0: not known
	leastAt   time.Time       // when it was measured, or could not be
	recent    time.Duration   // the latency that was judged last
	before    float64         // the limit before the measurement under way
}

func newLimit(cfg Config) *limit {
	return &limit{cfg: cfg, limit: float64(cfg.Start), latencies: make([]time.Duration, 0, kept)}
}

// admit lets a request in and returns the era of that, or sheds it. changed
// says that judging has begun or ended.
func (l *limit) admit(now time.Time) (era uint64, ok, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok, changed = l.room(now)
	if ok {
		l.enter()
	}
	return l.era, ok, changed
}

// wouldAdmit is admit for a request that does not come in yet.
func (l *limit) wouldAdmit(now time.Time) (ok, changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.room(now)
}

// room reports whether one more may come in, and notes it if not.
func (l *limit) room(now time.Time) (ok, changed bool) {
	changed = l.look(now)
	if l.atWork < int(l.limit) {
		return true, changed
	}
	l.full, l.lastFull, l.peak = true, now, 0
	if l.phase == open {
		l.drain(now)
		changed = true
	}
	return false, changed
}

func (l *limit) enter() {
	l.atWork++
	l.peak = max(l.peak, l.atWork)
}

// leave and back are for a request that waits for somebody else meanwhile. It
// is let in again, whatever the limit: what has begun is not shed.
func (l *limit) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.atWork--
}

func (l *limit) back() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enter()
}

// done takes the latency of a request that has ended.
func (l *limit) done(now time.Time, era uint64, latency time.Duration) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.atWork--
	if l.phase == open {
		return false
	}
	// What was let in under another limit says nothing about this one; in
	// draining it is just those that tell.
	if len(l.latencies) < kept && (era == l.era || l.phase == draining) {
		l.latencies = append(l.latencies, max(latency, time.Nanosecond))
	}
	return l.look(now)
}

// look moves on to the next phase when it is time.
func (l *limit) look(now time.Time) (changed bool) {
	switch l.phase {
	case open:
	case draining:
		if l.atWork <= l.cfg.Least {
			if len(l.latencies) >= l.cfg.measured() {
				l.recent = median(l.latencies)
			}
			l.phase = measuring
			l.turn(now, float64(l.cfg.Least))
		} else if now.Sub(l.began) > patience {
			l.giveUp(now)
		}
	case measuring:
		if len(l.latencies) >= l.cfg.measured() {
			l.least, l.leastAt = median(l.latencies), now
			l.phase = judging
			l.turn(now, l.before*l.gradient())
		} else if now.Sub(l.began) > patience {
			l.giveUp(now)
		}
	case judging:
		return l.judge(now)
	}
	return false
}

func (l *limit) judge(now time.Time) (changed bool) {
	if now.Sub(l.lastFull) >= calm && l.peak*4 <= l.cfg.Start*3 {
		l.phase = open
		l.turn(now, float64(l.cfg.Start))
		return true
	}
	if len(l.latencies) < judged || now.Sub(l.began) < window {
		return false
	}
	l.recent = median(l.latencies)
	next := l.limit*l.gradient() + math.Sqrt(l.limit)
	if !l.full {
		// Slow without being full: it is not for the number of requests.
		next = max(next, l.limit)
	} else if now.Sub(l.leastAt) >= l.cfg.Remeasure {
		l.drain(now)
		return false
	}
	l.turn(now, next)
	return false
}

// gradient is how far the latency is from the least one: 1 if it is not.
func (l *limit) gradient() float64 {
	if l.least == 0 || l.recent <= l.least {
		return 1
	}
	return float64(l.least) / float64(l.recent)
}

// drain begins a measurement.
func (l *limit) drain(now time.Time) {
	l.before = l.limit
	l.phase = draining
	l.turn(now, float64(l.cfg.Least))
}

// giveUp goes on without a least latency: the limit grows then. To shed without
// knowing why would be worse.
func (l *limit) giveUp(now time.Time) {
	l.least, l.leastAt = 0, now
	l.phase = judging
	l.turn(now, l.before+math.Sqrt(l.before))
}

// turn sets the limit, and with it begins an era.
func (l *limit) turn(now time.Time, limit float64) {
	l.limit = min(max(limit, float64(l.cfg.Least)), float64(l.cfg.Most))
	l.era++
	l.latencies = l.latencies[:0]
	l.began, l.full = now, false
}

func (l *limit) now() (limit, atWork int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.limit), l.atWork
}

// median sorts what it is given.
func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
