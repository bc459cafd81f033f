// Command server offers the service greeter, at whatever port is free.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	// The listener comes first: who is in the catalog can be reached.
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello, %s!\n", r.PathValue("name"))
	})
	server := &http.Server{Handler: httpmesh.RequireService("greeter", mux), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	mesh, err := discovery.Open(ctx, discovery.Config{Log: slog.Default()})
	if err != nil {
		return err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	me, err := mesh.Register(registration.Config{
		Service: "greeter",
		Port:    port,
		Host:    os.Getenv("ADVERTISE"), // empty: found out
		Checks:  []registration.Check{{Path: "/healthz"}},
	})
	if err != nil {
		return errors.Join(err, mesh.Close())
	}

	select {
	case <-ctx.Done():
	case err = <-served:
	}
	leave, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Say so and wait until the others know; finish what is in flight; deregister.
	return errors.Join(err, me.Drain(leave), server.Shutdown(leave), mesh.Close())
}
