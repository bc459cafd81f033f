package app

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/observability/health"
)

// patience is how long a check waits for a first answer of Consul: a probe is
// no place to wait.
const patience = 50 * time.Millisecond

var errNoAnswer = errors.New("none so far")

func (s *service) checkListening(context.Context) error {
	if !s.listening.Load() {
		return errors.New("not open yet")
	}
	return nil
}

func (s *service) checkRegistered(context.Context) error {
	_, status, ok := s.registration()
	if !ok {
		return errors.New("not begun")
	}
	if status.State != registration.StateRegistered {
		return fmt.Errorf("%s: %s", status.State, status.Why)
	}
	return nil
}

// watchPeers tells in readiness what is known of each peer. It decides only for
// those who wait for their peers, and only until the first answer: were it to
// decide for good, services that need each other would wait for each other.
func (s *service) watchPeers() {
	for _, peer := range s.spec.Peers {
		if s.spec.WaitForPeers {
			var answered atomic.Bool
			s.checks.Add("first answer about "+peer, health.Decides, func(ctx context.Context) error {
				if answered.Load() {
					return nil
				}
				if _, err := s.ready(ctx, peer); err != nil {
					return err
				}
				answered.Store(true)
				return nil
			})
		}
		s.checks.Add(peer, health.Tells, func(ctx context.Context) error {
			ready, err := s.ready(ctx, peer)
			if err == nil && ready == 0 {
				return errors.New("no instance is ready")
			}
			return err
		})
	}
}

// ready returns how many instances of the service are ready.
func (s *service) ready(ctx context.Context, service string) (int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoAnswer)
	defer cancel()
	snapshot, err := s.mesh.Latest(ctx, service)
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range snapshot.All() {
		if i.State.Ready() {
			n++
		}
	}
	return n, nil
}
