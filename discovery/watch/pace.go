package watch

import (
	"math/rand/v2"
	"time"
)

// pace spaces the questions about a service that changes often. An answer that
// comes alone is followed by the next question at once, so a single change is
// never held up. While answers come less than paceQuiet after one another, the
// gap before the next question doubles, and what changes meanwhile comes in one
// answer: a thousand changes in a second cost some twenty answers. Answers that
// bring nothing new are a spinning index or news of no interest, and are spaced
// wider. The zero value is ready.
type pace struct {
	last time.Time // the last answer
	gap  time.Duration
}

const (
	paceQuiet = time.Second
	paceFirst = 10 * time.Millisecond
	// paceNews bounds the gap, jitter aside, after answers that brought news: a
	// newcomer is seen within 100 ms however much else happens.
	paceNews = 80 * time.Millisecond
	// paceIdle bounds it after answers that brought none.
	paceIdle = 500 * time.Millisecond
)

// take notes an answer, and returns how long to wait before the next question:
// the gap and up to a quarter more, so that the watchers of a service do not
// come back all at once.
func (p *pace) take(now time.Time, news bool) time.Duration {
	most := paceIdle
	if news {
		most = paceNews
	}
	switch {
	case p.last.IsZero() || now.Sub(p.last) >= paceQuiet:
		p.gap = 0
	default:
		p.gap = min(max(2*p.gap, paceFirst), most)
	}
	p.last = now
	return p.gap + rand.N(p.gap/4+1)
}
