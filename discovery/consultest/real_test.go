package consultest_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestRealConsulCanBePausedKilledAndBroughtBack(t *testing.T) {
	t.Parallel()
	s := consultest.Real(t)
	c := s.Client()
	register(t, c, beaten("order-1"))

	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	_, _, err := c.Health().Service("order", "", false, (&api.QueryOptions{}).WithContext(ctx))
	cancel()
	if err == nil {
		t.Error("a paused Consul answered")
	}
	s.Resume()
	if v, _ := entries(t, c, nil); len(v) != 1 {
		t.Errorf("got %d entries after a pause; want 1", len(v))
	}

	s.Pause() // a paused one dies too
	s.Kill()
	s.Kill()
	if _, err := c.Status().Leader(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a killed Consul: got %v; want connection refused", err)
	}
	addr := s.Addr()
	s.Restart()
	if s.Addr() != addr {
		t.Errorf("the address went from %s to %s; want it to stay", addr, s.Addr())
	}
	if v, _ := entries(t, c, nil); len(v) != 1 {
		t.Errorf("got %d entries after a restart; want 1", len(v))
	}
}

func TestClientAgentFindsItsServerAgainAfterAWipe(t *testing.T) {
	t.Parallel()
	s := consultest.Real(t)
	a := s.Agent()
	register(t, a.Client(), beaten("order-1"))
	c := s.Client()
	onAgent := func() bool {
		v, _ := entries(t, c, nil)
		return len(v) == 1 && v[0].Node.Node == consultest.AgentNodeName
	}
	for end := time.Now().Add(30 * time.Second); !onAgent(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was registered with the agent is not in the server's catalog on the agent's node")
		}
	}
	s.Wipe()
	near := a.Client()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if leader, err := near.Status().Leader(); err == nil && leader != "" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the agent never found its server again")
		}
	}
}
