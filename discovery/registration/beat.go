package registration

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// What the TTL check says. The outputs are constant: a beat that changes nothing
// wakes no watcher. Watchers know a draining instance by the word in front.
const (
	servingOutput  = "serving"
	drainingOutput = "draining: the instance is leaving and takes no new requests"
	notReadyPrefix = "not ready: "

	// maxReasonBytes of Ready's error are told to Consul.
	maxReasonBytes = 512
)

// word is what the TTL check says, or is to say.
type word struct{ status, output string }

// word returns what the TTL check should say now.
func (l *life) word() word {
	if l.draining {
		return word{api.HealthCritical, drainingOutput}
	}
	if err := l.cfg.Ready(); err != nil {
		reason := strings.ToValidUTF8(err.Error(), "?")
		if len(reason) > maxReasonBytes {
			reason = strings.ToValidUTF8(reason[:maxReasonBytes], "")
		}
		return word{api.HealthCritical, notReadyPrefix + reason}
	}
	return word{api.HealthPassing, servingOutput}
}

// beat tells the TTL check's word. That the check is unknown means that the
// entry, or a part of it, has vanished.
func (l *life) beat(ctx context.Context, say word) {
	err := l.update(ctx, say)
	switch {
	case err == nil:
		l.agentAnswered()
	case unknownCheck(err):
		l.agentAnswered()
		l.vanished("its TTL check is unknown to Consul")
	default:
		l.agentFailed(err)
	}
}

// unknownCheck reports whether the agent says that it has no such TTL check.
func unknownCheck(err error) bool {
	status, ok := errors.AsType[api.StatusError](err)
	return ok && (status.Code == http.StatusNotFound || strings.Contains(status.Body, "does not have associated TTL"))
}

// update writes the TTL check's word.
func (l *life) update(ctx context.Context, say word) error {
	err := l.call(ctx, opBeat, func(q *api.QueryOptions) error {
		return l.cfg.Client.Agent().UpdateTTLOpts(rollcallCheck(l.cfg.ID), say.output, say.status, q)
	})
	if err != nil {
		return err
	}
	if say.status != l.told.status {
		l.lookAt, l.looks = time.Now(), 0 // news: see that it arrives
	}
	l.told = say
	l.beatAt = time.Now().Add(l.cfg.Beat)
	return nil
}
