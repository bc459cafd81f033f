// Command gokit offers the service welcome, made of go-kit's parts. For each
// request it asks the service greeter, by its name.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-kit/kit/endpoint"
	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
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
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":0")
	if err != nil {
		return err
	}
	mesh, err := discovery.Open(ctx, discovery.Config{Log: slog.Default()})
	if err != nil {
		return err
	}
	greet, err := kitmesh.Endpoint(mesh.Client(), http.MethodGet, "greeter/greet", encodeName, decodeText)
	if err != nil {
		return errors.Join(err, mesh.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("GET /welcome/{name}", kithttp.NewServer(welcome(greet), decodeName, encodeText))
	server := &http.Server{Handler: httpmesh.RequireService("welcome", mux), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	port := listener.Addr().(*net.TCPAddr).Port
	registrar := kitmesh.NewRegistrar(mesh, registration.Config{Service: "welcome", Port: port, Checks: []registration.Check{{Path: "/healthz"}}}, slog.Default())
	registrar.Register()
	if err := registrar.Err(); err != nil { // a wrong setting
		return errors.Join(err, server.Close(), mesh.Close())
	}

	select {
	case <-ctx.Done():
	case err = <-served:
	}
	leave, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = errors.Join(err, registrar.Registered().Drain(leave), server.Shutdown(leave))
	registrar.Deregister()
	return errors.Join(err, mesh.Close())
}

func welcome(greet endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, name any) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		greeting, err := greet(ctx, name)
		if err != nil {
			return nil, err
		}
		return fmt.Sprintf("Welcome. %s", greeting), nil
	}
}

// What goes to greeter and comes back.

func encodeName(_ context.Context, r *http.Request, name any) error {
	r.URL = r.URL.JoinPath(url.PathEscape(name.(string)))
	return nil
}

func decodeText(_ context.Context, r *http.Response) (any, error) {
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("greeter answered %s", r.Status)
	}
	text, err := io.ReadAll(r.Body)
	return string(text), err
}

// What comes in and goes out.

func decodeName(_ context.Context, r *http.Request) (any, error) { return r.PathValue("name"), nil }

func encodeText(_ context.Context, w http.ResponseWriter, text any) error {
	_, err := io.WriteString(w, text.(string))
	return err
}
