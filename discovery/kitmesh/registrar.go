package kitmesh

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/go-kit/kit/sd"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

var _ sd.Registrar = (*Registrar)(nil)

// Registrar is an sd.Registrar over a mesh. Unlike go-kit's own for Consul it
// needs no Consul to begin with, never gives up, and mends an entry that was
// lost. Use NewRegistrar.
type Registrar struct {
	mesh *discovery.Mesh
	cfg  registration.Config
	log  *slog.Logger

	// turn holds one while a Register or Deregister lasts, so that an entry is
	// gone before it is registered anew. It is no mutex since that wait may be
	// long, and a synctest bubble's time stands still while one is waited for.
	turn    chan struct{}
	current atomic.Pointer[registration.Registration] // nil while not registered
	failed  atomic.Pointer[error]                     // of the last Register or Deregister; nil if none
}

// NewRegistrar returns a Registrar of one instance: cfg says which, and may
// leave out what (*discovery.Mesh).Register fills in. What Register and
// Deregister can't return goes to log, and can be asked for by Err; a nil log
// means slog.Default().
func NewRegistrar(mesh *discovery.Mesh, cfg registration.Config, log *slog.Logger) *Registrar {
	if log == nil {
		log = slog.Default()
	}
	return &Registrar{mesh: mesh, cfg: cfg, log: log, turn: make(chan struct{}, 1)}
}

// Register begins the instance's life in Consul. It does not wait for Consul:
// see Registered, whose Wait tells when the entry was seen there. A wrong setting or a closed
// mesh is logged. While the instance is registered it does nothing.
func (r *Registrar) Register() {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if r.current.Load() != nil {
		return
	}
	if r.mesh == nil {
		r.fail(fmt.Errorf("kitmesh: register %s: mesh is nil; want an open one", r.cfg.Service))
		return
	}
	registered, err := r.mesh.Register(r.cfg)
	if err != nil {
		r.fail(fmt.Errorf("kitmesh: register %s: %w", r.cfg.Service, err))
		return
	}
	r.failed.Store(nil)
	r.current.Store(registered)
}

// Deregister takes the instance's entry out of Consul and waits until that is
// done, which a Consul that does not answer holds up for cfg.ConsulTimeout at
// most. While the instance is not registered it does nothing. Requests that
// arrive until others have learned of it are served only if the listener is
// still open: to leave without losing one, call Drain of Registered first.
func (r *Registrar) Deregister() {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	registered := r.current.Swap(nil)
	if registered == nil {
		return
	}
	if err := registered.Close(); err != nil {
		r.fail(fmt.Errorf("kitmesh: deregister %s: %w", registered.ID(), err))
		return
	}
	r.failed.Store(nil)
}

// Registered returns the instance's life between Register and Deregister: its
// state, when it was seen in the catalog, and its Drain. It is nil at other
// times, and after a Register that failed.
func (r *Registrar) Registered() *registration.Registration { return r.current.Load() }

// Err returns what went wrong with the last Register or Deregister that did
// something, nil if nothing.
func (r *Registrar) Err() error {
	if err := r.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *Registrar) fail(err error) {
	r.failed.Store(&err)
	r.log.Error("registrar failed", "service", r.cfg.Service, "error", err)
}
