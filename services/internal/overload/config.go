package overload

import (
	"fmt"
	"time"
)

// Kind is what a limit is for.
type Kind string

// The kinds of requests.
const (
	Read  Kind = "read"  // GET, HEAD, OPTIONS, TRACE
	Write Kind = "write" // all other methods
)

// Config says how a Limiter is to judge. The zero value is fine.
type Config struct {
	// Start is how many requests of a kind may be at work at once before
	// anything is judged or shed. 0 means 48. Higher tolerates larger bursts
	// and slower stores, and makes the first moment of an overload slower: so
	// many requests are let in before it is noticed.
	Start int
	// Least is how many are let in while the least latency is measured, and the
	// lowest limit. 0 means 3, Envoy's min_concurrency. Higher than the number
	// of requests that the server can work on side by side measures a queue.
	Least int
	// Most is the highest limit. 0 means 1024.
	Most int
	// Remeasure is how long a least latency holds while the overload goes on. 0
	// means 10s. Shorter notices sooner that the work itself became slower or
	// faster; each time costs some requests.
	Remeasure time.Duration
	// MaxBody is how many bytes of a request's body are read before it is at
	// work, and the most that its handler can read. 0 means 64 KiB. Higher lets
	// each client that sends slowly hold more memory.
	MaxBody int64

	// Shed is called for each request that is shed. nil means nobody is told.
	Shed func(kind Kind)
	// Changed is called when a limit comes to be judged or ceases to be: over
	// tells which. nil means nobody is told.
	Changed func(kind Kind, over bool)
}

// MaxBody is what Config.MaxBody is by default.
const MaxBody = 64 << 10

const (
	// window is the least time between two judgements.
	window = 100 * time.Millisecond
	// judged is how many requests one judgement looks at, at least.
	judged = 10
	// kept is how many latencies of a window are kept; the median of the first
	// so many says enough.
	kept = 256
	// patience is how long a measurement may take: requests that hang tell
	// nothing, and meanwhile others are shed.
	patience = 5 * time.Second
	// calm is how long the limit must not have been reached for the overload to
	// be over.
	calm = time.Second
)

// measured is how many requests a measurement looks at: so many that a stall of the
// whole server, which delays the Least that are at work, does not make the median.
func (c Config) measured() int { return min(2*c.Least+1, kept) }

func (c Config) filled() (Config, error) {
	for _, field := range []struct {
		name  string
		value *int
		zero  int
	}{{"Start", &c.Start, 48}, {"Least", &c.Least, 3}, {"Most", &c.Most, 1024}} {
		if *field.value < 0 {
			return c, fmt.Errorf("overload: %s is %d; want 1 or more, or 0 for %d", field.name, *field.value, field.zero)
		}
		if *field.value == 0 {
			*field.value = field.zero
		}
	}
	if c.Remeasure < 0 {
		return c, fmt.Errorf("overload: Remeasure is %v; want more than 0, or 0 for 10s", c.Remeasure)
	}
	if c.Remeasure == 0 {
		c.Remeasure = 10 * time.Second
	}
	if c.MaxBody < 0 {
		return c, fmt.Errorf("overload: MaxBody is %d; want 1 or more, or 0 for %d", c.MaxBody, MaxBody)
	}
	if c.MaxBody == 0 {
		c.MaxBody = MaxBody
	}
	c.Least = min(c.Least, c.Start)
	c.Most = max(c.Most, c.Start)
	if c.Shed == nil {
		c.Shed = func(Kind) {}
	}
	if c.Changed == nil {
		c.Changed = func(Kind, bool) {}
	}
	return c, nil
}
