// Package rig is a running fleet as the faults need it: who is there, what Consul, the gateway and each instance
// say, and how to bring it back to what it was. It needs an engine whose containers can be reached by their
// addresses, as on Linux.
package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// Ports of every service of ours inside its container.
const (
	TrafficPort = 8080
	AdminPort   = 8081
)

// Usual is how many instances of each service there are between two faults.
var Usual = map[string]int{"user": 2, "order": 3, "gateway": 1}

// Rig is a fleet and its clients. It may be used by several goroutines.
type Rig struct {
	*fleet.Fleet
	Consul *api.Client
	client *http.Client
}

// New returns the rig of a fleet that is up, or will be. Close it.
func New(f *fleet.Fleet) (*Rig, error) {
	r := &Rig{Fleet: f, client: &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	return r.WithToken("")
}

// WithToken returns a rig of the same fleet whose Consul client has that ACL token. Closing either is enough.
func (r *Rig) WithToken(token string) (*Rig, error) {
	consul, err := api.NewClient(&api.Config{
		Address: fmt.Sprintf("127.0.0.1:%d", r.Ports.Consul),
		Token:   token,
		// A connection for each question: one that was opened to a Consul of before would fail the first question
		// to the next.
		HttpClient: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err != nil {
		return nil, err
	}
	return &Rig{Fleet: r.Fleet, Consul: consul, client: r.client}, nil
}

// Close lets go of connections. The fleet stays.
func (r *Rig) Close() { r.client.CloseIdleConnections() }

// Gateway is the URL of the gateway's published port.
func (r *Rig) Gateway() string { return fmt.Sprintf("http://127.0.0.1:%d", r.Ports.Gateway) }

// GatewayAdmin is the URL of its admin port.
func (r *Rig) GatewayAdmin() string { return fmt.Sprintf("http://127.0.0.1:%d", r.Ports.GatewayAdmin) }

// Prometheus is its URL.
func (r *Rig) Prometheus() string { return fmt.Sprintf("http://127.0.0.1:%d", r.Ports.Prometheus) }

// ConsulURL is Consul's.
func (r *Rig) ConsulURL() string { return fmt.Sprintf("http://127.0.0.1:%d", r.Ports.Consul) }

// Admin is the URL of a container's admin port.
func Admin(c fleet.Container) string { return fmt.Sprintf("http://%s:%d", c.Address, AdminPort) }

// Traffic is the URL of its traffic port.
func Traffic(c fleet.Container) string { return fmt.Sprintf("http://%s:%d", c.Address, TrafficPort) }

// Answer is one that was read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends one request; body, unless it is nil, as JSON.
func (r *Rig) Do(ctx context.Context, method, url string, body any) (Answer, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return Answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return Answer{}, fmt.Errorf("read the body of %s %s: %w", method, url, err)
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: b}, nil
}

// Want is Do for what must be answered 2xx.
func (r *Rig) Want(ctx context.Context, method, url string, body any) (Answer, error) {
	a, err := r.Do(ctx, method, url, body)
	if err == nil && (a.Status < 200 || a.Status > 299) {
		err = fmt.Errorf("%s %s: status %d: %.300s", method, url, a.Status, a.Body)
	}
	return a, err
}

// JSON decodes the 2xx answer of a GET into v.
func (r *Rig) JSON(ctx context.Context, url string, v any) error {
	a, err := r.Want(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("GET %s: %w in %.200s", url, err, a.Body)
	}
	return nil
}

// Setting of a test build's faults: see services/internal/fault. The zero value heals.
type Setting struct {
	Status int    `json:"status,omitempty"`
	Delay  string `json:"delay,omitempty"`
	Slots  int    `json:"slots,omitempty"`
	Hold   string `json:"hold,omitempty"`
	Clock  string `json:"clock,omitempty"`
	Crash  string `json:"crash,omitempty"`

	Method  string `json:"method,omitempty"`
	Unkeyed bool   `json:"unkeyed,omitempty"`
	Renew   bool   `json:"renew,omitempty"`
	Count   bool   `json:"count,omitempty"`
	Stream  string `json:"stream,omitempty"`
}

// Fault sets the faults of an instance.
func (r *Rig) Fault(ctx context.Context, c fleet.Container, s Setting) error {
	if _, err := r.Want(ctx, http.MethodPut, Admin(c)+"/faults", s); err != nil {
		return fmt.Errorf("set a fault of %s: %w", c.Name, err)
	}
	return nil
}

// Executions are how many times each request was executed at any of the containers since they were set to count, by
// the request's ID.
func (r *Rig) Executions(ctx context.Context, cs []fleet.Container) (map[string]int, error) {
	sum := map[string]int{}
	for _, c := range cs {
		var of map[string]int
		if err := r.JSON(ctx, Admin(c)+"/faults/executions", &of); err != nil {
			return nil, fmt.Errorf("count the executions at %s: %w", c.Name, err)
		}
		for id, n := range of {
			sum[id] += n
		}
	}
	return sum, nil
}

// Running containers of a service, ordered by name.
func (r *Rig) Running(ctx context.Context, service string) ([]fleet.Container, error) {
	cs, err := r.Containers(ctx, service)
	return slices.DeleteFunc(cs, func(c fleet.Container) bool { return c.State.Status != "running" }), err
}

// Entries of a service in the catalog, for HTTP: what has a gRPC port has an entry for that besides.
func (r *Rig) Entries(ctx context.Context, service string) ([]*api.ServiceEntry, error) {
	return r.entries(ctx, service, `"grpc" not in Service.Tags`)
}

func (r *Rig) entries(ctx context.Context, service, filter string) ([]*api.ServiceEntry, error) {
	es, _, err := r.Consul.Health().Service(service, "", false, (&api.QueryOptions{Filter: filter}).WithContext(ctx))
	return es, err
}

// ID is that of the catalog's entry for a running container.
func (r *Rig) ID(ctx context.Context, c fleet.Container) (string, error) {
	es, err := r.Entries(ctx, c.Service)
	if err != nil {
		return "", err
	}
	for _, e := range es {
		if e.Service.Address == c.Address {
			return e.Service.ID, nil
		}
	}
	return "", fmt.Errorf("%s at %s is not in the catalog", c.Name, c.Address)
}

// Passing is an error unless each service has exactly so many entries for each protocol, each with both of its own
// checks, all passing.
func (r *Rig) Passing(ctx context.Context, want map[string]int) error {
	var errs []error
	for service, n := range want {
		errs = append(errs, r.passing(ctx, service, "http", `"grpc" not in Service.Tags`, n))
		if service == "user" || service == "order" {
			errs = append(errs, r.passing(ctx, service, "grpc", `"grpc" in Service.Tags`, n))
		}
	}
	return errors.Join(errs...)
}

func (r *Rig) passing(ctx context.Context, service, protocol, filter string, want int) error {
	es, err := r.entries(ctx, service, filter)
	if err != nil {
		return err
	}
	passing := 0
	for _, e := range es {
		own := 0
		for _, c := range e.Checks {
			if c.ServiceID == e.Service.ID {
				own++
			}
		}
		if own >= 2 && e.Checks.AggregatedStatus() == api.HealthPassing {
			passing++
		}
	}
	if len(es) != want || passing != want {
		return fmt.Errorf("%s has %d entries for %s, %d of them passing with both checks; want %d", service, len(es), protocol, passing, want)
	}
	return nil
}

// Configured is an error unless the catalog has the entry of compose/consul, which Consul's agent has from its start.
func (r *Rig) Configured(ctx context.Context) error {
	es, err := r.Entries(ctx, "prometheus")
	if err == nil && len(es) == 0 {
		err = errors.New("the catalog has no entry of prometheus")
	}
	return err
}

// Leader is an error unless Consul answers and has one.
func (r *Rig) Leader(ctx context.Context) error {
	var address string
	if err := r.JSON(ctx, r.ConsulURL()+"/v1/status/leader", &address); err != nil {
		return err
	}
	if address == "" {
		return errors.New("consul has no leader")
	}
	return nil
}

// Page is what /debug/discovery of an instance tells.
type Page struct {
	At       time.Time
	Services []struct {
		Service   string
		Error     string
		Since     time.Time // when the set came
		Proven    time.Time // zero: it was not
		Panic     bool
		Ready     int
		Instances []struct{ ID, Addr, State string }
	}
}

// Knows is what the gateway knows of a service.
func (r *Rig) Knows(ctx context.Context, service string) (ids []string, age time.Duration, err error) {
	var p Page
	if err := r.JSON(ctx, r.GatewayAdmin()+"/debug/discovery", &p); err != nil {
		return nil, 0, err
	}
	for _, s := range p.Services {
		if s.Service == service {
			for _, i := range s.Instances {
				ids = append(ids, i.ID)
			}
			if s.Proven.IsZero() {
				s.Proven = s.Since
			}
			return ids, p.At.Sub(s.Proven), nil
		}
	}
	return nil, 0, fmt.Errorf("the gateway does not know %s", service)
}
