package watch

import "time"

// pace limits the answers that are taken from an index that spins, by the
// generic cell rate algorithm (ITU-T I.371): a burst at once, then one at a
// time. A change that comes alone is never held up. The zero value is ready.
type pace struct{ next time.Time }

const (
	paceBurst = 10
	paceEvery = 500 * time.Millisecond
)

// take returns how long to wait before the next question.
func (p *pace) take(now time.Time) time.Duration {
	if earliest := now.Add(-(paceBurst - 1) * paceEvery); p.next.Before(earliest) {
		p.next = earliest
	}
	wait := max(0, p.next.Sub(now))
	p.next = p.next.Add(paceEvery)
	return wait
}
