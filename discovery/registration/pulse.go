package registration

import (
	"context"
	"time"
)

// pulse asks what the held question does not tell, in two answers of constant
// size: whether the agent still has our checks, and whether the servers have a
// leader. No leader may have meant no catalog, so its return is followed by a
// look. An outage of the servers behind a client agent is seen in no other way:
// the agent goes on answering, and repeats a blocking query that broke by itself.
func (l *life) pulse(ctx context.Context) {
	checks, err := l.ownChecks(ctx)
	if err == nil {
		err = l.leader(ctx)
	}
	if err != nil {
		l.agentFailed(err) // and asked again after that
		return
	}
	l.unsure = false
	l.agentAnswered()
	l.pulseAt = time.Now().Add(jitter(l.cfg.Pulse))

	beat, probe := checks[rollcallCheck(l.cfg.ID)], checks[probeCheck(l.cfg.ID)]
	switch {
	case beat == nil || beat.Status != l.told.status:
		// A beat puts it right, or finds the check gone: a token that may not
		// read it does not see it either.
		l.beatAt = time.Now()
	case probe == nil && l.cfg.Probe != "":
		l.vanished("the agent has the entry without its HTTP check")
	}
}
