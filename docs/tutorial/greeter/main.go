// Command greeter is the tutorial's own service: it greets a user by the name
// that the service user knows.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	mesh, err := discovery.Open(ctx, discovery.Config{})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("GET /greet/{id}", func(w http.ResponseWriter, r *http.Request) {
		var user struct{ Name string }
		req, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://user/users/"+r.PathValue("id"), nil)
		resp, err := mesh.Client().Do(req)
		if err == nil {
			defer resp.Body.Close()
			err = json.NewDecoder(resp.Body).Decode(&user)
		}
		if err != nil || user.Name == "" {
			http.Error(w, "no such user, or nobody to ask", http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "Hello, %s!\n", user.Name)
	})
	server := &http.Server{Addr: ":8080", Handler: httpmesh.RequireService("greeter", http.DefaultServeMux), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	me, err := mesh.Register(registration.Config{
		Service: "greeter", Port: 8080, Checks: []registration.Check{{Path: "/healthz"}},
		Tags: []string{"rollcall-route"}, Meta: map[string]string{"rollcall-routes": "/greet"}, // at the gateway
	})
	if err != nil {
		log.Fatal(err)
	}
	<-ctx.Done()
	leave, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(me.Drain(leave), server.Shutdown(leave), mesh.Close()); err != nil {
		log.Print(err)
	}
}
