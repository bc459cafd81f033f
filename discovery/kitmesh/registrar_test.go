package kitmesh_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/kit/sd"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a registrar of order-1, a Consul in memory, and what was logged.
type rig struct {
	agent     *consultest.Agent
	mesh      *discovery.Mesh
	registrar *kitmesh.Registrar
	log       *bytes.Buffer
}

func inBubble(t *testing.T, change func(cfg *registration.Config), do func(t *testing.T, r rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := rig{agent: consultest.New(t), log: &bytes.Buffer{}}
		var err error
		if r.mesh, err = discovery.Open(t.Context(), discovery.Config{Source: &catalog.Fixed{}}); err != nil {
			t.Fatal(err)
		}
		// Close tells again of a deregistration that failed, which is not
		// what these tests are about.
		t.Cleanup(func() { _ = r.mesh.Close() })
		cfg := registration.Config{Client: r.agent.Client(), ConsulAddr: consultest.Address, Service: "order", ID: "order-1", Host: "127.0.0.1", Port: 4000}
		if change != nil {
			change(&cfg)
		}
		r.registrar = kitmesh.NewRegistrar(r.mesh, cfg, slog.New(slog.NewTextHandler(r.log, nil)))
		do(t, r)
	})
}

func (r rig) entries(t *testing.T) int {
	t.Helper()
	v, _, err := r.agent.Client().Health().Service("order", "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(v)
}

func TestRegistrarRegistersOnceAndDeregisters(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r rig) {
		var registrar sd.Registrar = r.registrar
		registrar.Deregister() // nothing is registered: nothing happens
		for range 3 {
			for range 2 {
				registrar.Register()
			}
			_ = r.registrar.Registered().Wait(t.Context())
			if n := r.entries(t); n != 1 {
				t.Fatalf("got %d entries after Register; want 1", n)
			}
			for range 2 {
				registrar.Deregister()
			}
			if n := r.entries(t); n != 0 {
				t.Fatalf("got %d entries after Deregister; want none", n)
			}
			if r.registrar.Registered() != nil {
				t.Error("a life is told of after Deregister")
			}
		}
		var registers int
		for _, q := range r.agent.Requests("/v1/agent/service/register") {
			if q.Method == "PUT" {
				registers++
			}
		}
		if registers != 3 {
			t.Errorf("Consul was told to register %d times; want 3", registers)
		}
		if err := r.registrar.Err(); err != nil || r.log.Len() > 0 {
			t.Errorf("got error %v, log %q; want neither", err, r.log)
		}
	})
}

func TestRegistrarKeepsTheEntryThroughAWipe(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r rig) {
		r.registrar.Register()
		_ = r.registrar.Registered().Wait(t.Context())
		r.agent.Wipe()
		time.Sleep(5 * time.Second)
		if n := r.entries(t); n != 1 {
			t.Errorf("got %d entries 5s after Consul lost everything; want 1", n)
		}
		r.registrar.Deregister()
	})
}

func TestRegistrarDoesNotWaitForAnAbsentConsul(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r rig) {
		r.agent.Break("", consultest.Silent())
		begin := time.Now()
		r.registrar.Register()
		if took := time.Since(begin); took != 0 {
			t.Errorf("Register took %v; want it not to wait", took)
		}
		time.Sleep(time.Minute)
		begin = time.Now()
		r.registrar.Deregister()
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("Deregister took %v; want at most 2s", took)
		}
	})
}

func TestRegisterWaitsForTheDeregisterBeforeIt(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r rig) {
		r.registrar.Register()
		_ = r.registrar.Registered().Wait(t.Context())
		r.agent.Break("", consultest.Paused())
		gone := make(chan struct{})
		go func() {
			r.registrar.Deregister()
			close(gone)
		}()
		synctest.Wait()
		begin := time.Now()
		go func() {
			time.Sleep(time.Second)
			r.agent.Mend()
		}()
		r.registrar.Register()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("Register took %v; want it to wait for 1s until the old entry is gone", took)
		}
		<-gone
		_ = r.registrar.Registered().Wait(t.Context())
		if n := r.entries(t); n != 1 {
			t.Errorf("got %d entries; want 1", n)
		}
		r.registrar.Deregister()
	})
}

func TestRegistrarTellsOfADeregistrationThatFailed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r rig) {
		r.registrar.Register()
		_ = r.registrar.Registered().Wait(t.Context())
		r.agent.Break("", consultest.Refuse())
		r.registrar.Deregister()
		if err := r.registrar.Err(); err == nil || !strings.Contains(err.Error(), "order-1") {
			t.Errorf("got %v; want an error that names the instance", err)
		}
		if !strings.Contains(r.log.String(), "level=ERROR") {
			t.Errorf("got log %q; want an error", r.log)
		}
		r.agent.Mend()
		r.registrar.Register()
		if err := r.registrar.Err(); err != nil {
			t.Errorf("got %v after a Register that worked; want nil", err)
		}
		r.registrar.Deregister()
	})
}

func TestRegistrarLogsAWrongSetting(t *testing.T) {
	inBubble(t, func(cfg *registration.Config) { cfg.Port = 70000 }, func(t *testing.T, r rig) {
		r.registrar.Register()
		if err := r.registrar.Err(); err == nil || !strings.Contains(err.Error(), "Port is 70000") {
			t.Errorf("got %v; want an error that names the port", err)
		}
		if !strings.Contains(r.log.String(), "Port is 70000") {
			t.Errorf("got log %q; want it to name the port", r.log)
		}
		if r.registrar.Registered() != nil {
			t.Error("a life is told of after a Register that failed")
		}
		r.registrar.Deregister()
	})
}

func TestRegistrarOfAClosedMeshOrNoneSaysSo(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r rig) {
		if err := r.mesh.Close(); err != nil {
			t.Fatal(err)
		}
		r.registrar.Register()
		if err := r.registrar.Err(); !errors.Is(err, catalog.ErrClosed) {
			t.Errorf("got %v; want ErrClosed", err)
		}
		none := kitmesh.NewRegistrar(nil, registration.Config{Service: "order"}, nil)
		none.Register()
		if err := none.Err(); err == nil || !strings.Contains(err.Error(), "mesh is nil") {
			t.Errorf("got %v; want it to say that there is no mesh", err)
		}
	})
}

func TestRegistrarMayBeUsedByManyAtOnce(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r rig) {
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if i%2 == 0 {
					r.registrar.Register()
					return
				}
				r.registrar.Deregister()
			})
		}
		all.Wait()
		r.registrar.Register()
		_ = r.registrar.Registered().Wait(t.Context())
		r.registrar.Deregister()
		time.Sleep(time.Minute) // nothing that was overtaken registers later
		if n := r.entries(t); n != 0 {
			t.Errorf("got %d entries; want none", n)
		}
	})
}
