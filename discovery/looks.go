package discovery

import (
	"cmp"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// registrarDial bounds the making of a connection for registrations. It is
// shorter than elsewhere: a Consul that was recreated may answer at another
// address, and a dial into the old one must not hold up the return to the catalog.
const registrarDial = 500 * time.Millisecond

// looking returns the trace with a look at our own entries when a watch has
// reason to believe that Consul lost something.
func (m *Mesh) looking(trace *watch.Trace) *watch.Trace {
	var looks watch.Trace
	if trace != nil {
		looks = *trace
	}
	regressed, recovered := looks.Regressed, looks.Recovered
	looks.Regressed = func(service string) {
		m.look()
		if regressed != nil {
			regressed(service)
		}
	}
	looks.Recovered = func(service string) {
		m.look()
		if recovered != nil {
			recovered(service)
		}
	}
	return &looks
}

// look has every entry of ours looked up.
func (m *Mesh) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agent != nil {
		m.agent.Look() // asks, and does not wait
	}
}

// openAgent makes what all registrations share. The caller holds mu.
func (m *Mesh) openAgent() error {
	cfg := registration.AgentConfig{Client: m.own, Trace: m.trace.Registration, Log: m.log}
	if m.watcher != nil {
		cfg.Recovered = m.watcher.Retry // and a watch that recovers has the entries looked up
	}
	if m.own == nil {
		near := m.consul
		near.Datacenter = "" // an agent is of its own
		near.DialTimeout = cmp.Or(near.DialTimeout, registrarDial)
		client, closeIdle, err := consul.Open(near)
		if err != nil {
			return err
		}
		hold, closeHold, err := consul.Open(near)
		if err != nil {
			return err
		}
		cfg.Client, cfg.HoldClient, cfg.CloseIdle = client, hold, closeIdle
		m.closeIdle = append(m.closeIdle, closeIdle, closeHold)
	}
	var err error
	m.agent, err = registration.NewAgent(cfg)
	return err
}
