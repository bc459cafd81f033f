package before

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/log"
	"github.com/hashicorp/consul/api"
)

// Serve offers a service at the listener until ctx ends.
func Serve(ctx context.Context, client consul.Client, listener net.Listener, service string, handler http.Handler, logger log.Logger) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	port := listener.Addr().(*net.TCPAddr).Port
	registrar := consul.NewRegistrar(client, &api.AgentServiceRegistration{
		ID:      fmt.Sprintf("%s-%d", service, port),
		Name:    service,
		Address: "127.0.0.1",
		Port:    port,
		Check:   &api.AgentServiceCheck{HTTP: fmt.Sprintf("http://127.0.0.1:%d/healthz", port), Interval: "1s", Timeout: "2s"},
	}, logger)
	registrar.Register()

	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	registrar.Deregister()
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(leave))
}
