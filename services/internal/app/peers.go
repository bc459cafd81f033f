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
	all := s.registered.Load()
	if all == nil {
		return errors.New("not begun")
	}
	for _, r := range *all {
		if status := r.Status(); status.State != registration.StateRegistered {
			return fmt.Errorf("%s: %s", status.State, status.Why)
		}
	}
	return nil
}

// checkPeers shows in readiness what is known of each peer.
func (s *service) checkPeers() {
	for _, peer := range s.spec.Peers {
		if s.spec.RequirePeers {
			s.requireService(peer)
		}
		s.checks.Add(peer, health.Informational, func(ctx context.Context) error {
			ready, err := s.ready(ctx, peer)
			if err == nil && ready == 0 {
				return errors.New("no instance is ready")
			}
			return err
		})
	}
}

// requireService makes a first answer about the service a required dependency.
// Its instances are none: services that need each other would wait for each other.
func (s *service) requireService(service string) {
	var answered atomic.Bool
	s.checks.Add("first answer about "+service, health.Required, func(ctx context.Context) error {
		if answered.Load() {
			return nil
		}
		if _, err := s.ready(ctx, service); err != nil {
			return err
		}
		answered.Store(true)
		return nil
	})
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
