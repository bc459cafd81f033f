package registration

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
)

// rivalMemory is for how long an entry that was taken over is remembered.
const rivalMemory = time.Minute

// errRival means that another process registers under our ID while we do.
var errRival = errors.New("another instance claims the same ID: give each its own (Config.ID, or the setting ROLLCALL_INSTANCE_ID)")

// rivalry is about entries under our ID that are not ours.
type rivalry struct {
	taken   time.Time // when the last one was taken over; zero: never
	yielded bool      // its turn was granted
	told    bool      // in this rivalry
	turn    backoff
}

// differs says how the entry is other than it should be; "" if it is not.
func (l *life) differs(entry *api.AgentService) string {
	switch {
	case entry == nil:
		return "no entry"
	case entry.Address != l.host || entry.Port != l.cfg.Port:
		return fmt.Sprintf("the entry at %s port %d, not %s port %d", entry.Address, entry.Port, l.host, l.cfg.Port)
	case !slices.Equal(entry.Tags, l.cfg.Tags):
		return fmt.Sprintf("the entry with the tags %q, not %q", entry.Tags, l.cfg.Tags)
	case !maps.Equal(entry.Meta, l.cfg.Meta):
		return "the entry with another Meta"
	case entry.Weights != l.cfg.weights():
		return fmt.Sprintf("the entry with weight %d, not %d", entry.Weights.Passing, l.cfg.Weight)
	}
	return ""
}

// takeOver decides about an entry at another address under our ID. The first one
// was most likely left by an earlier life, and is taken over. One that is put back
// soon has a living process behind it: that is said loudly, and the two don't race
// but take turns that grow to 10 s, so that one of them is always known.
func (l *life) takeOver(entry *api.AgentService, host string, passing bool) error {
	now, r := time.Now(), &l.rival
	ours := []any{
		"service", l.cfg.Service, "id", l.cfg.ID,
		"theirs", entry.Address, "their_port", entry.Port, "ours", host, "our_port", l.cfg.Port,
	}
	if r.taken.IsZero() || now.Sub(r.taken) > rivalMemory {
		*r = rivalry{}
		if passing {
			l.cfg.Log.Warn("taking over an entry that passes at another address: is the ID unique?", ours...)
		}
	} else if !r.yielded {
		r.yielded = true
		if !r.told {
			r.told = true
			l.cfg.Log.Error("another instance uses our ID: its entry is left alone for a while", append(ours, "error", errRival)...)
		}
		r.turn.failed(errRival)
		l.agent.hold(max(mendPause, time.Until(r.turn.until)))
		return fmt.Errorf("%w; theirs is at %s port %d", errRival, entry.Address, entry.Port)
	}
	r.taken, r.yielded = now, false
	return nil
}
