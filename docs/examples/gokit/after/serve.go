package after

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

// Serve offers a service at the listener until ctx ends.
func Serve(ctx context.Context, mesh *discovery.Mesh, listener net.Listener, service string, handler http.Handler) error {
	server := &http.Server{Handler: httpmesh.RequireService(service, handler), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	port := listener.Addr().(*net.TCPAddr).Port
	registrar := kitmesh.NewRegistrar(mesh, registration.Config{
		Service: service,
		Port:    port,
		Checks:  []registration.Check{{Path: "/healthz"}},
	}, nil)
	registrar.Register() //nolint:contextcheck // the entry outlives ctx, until Deregister
	if err := registrar.Err(); err != nil {
		return errors.Join(err, server.Close())
	}

	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = errors.Join(err, registrar.Registered().Drain(leave), server.Shutdown(leave))
	registrar.Deregister()
	return err
}
