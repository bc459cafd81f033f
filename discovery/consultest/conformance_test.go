package consultest_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// side is one of the two Consuls that the script is played to.
type side struct {
	*api.Client
	http *http.Client
	base string
}

func (s side) get(path string) (*http.Response, string) {
	res, err := s.http.Get(s.base + path)
	if err != nil {
		return &http.Response{Status: err.Error()}, ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return res, err.Error()
	}
	return res, string(body)
}

// said is what a caller can act on: no error, a status with its text, or
// another error.
func said(err error) string {
	if status, ok := errors.AsType[api.StatusError](err); ok {
		return fmt.Sprintf("%d %s", status.Code, strings.TrimSpace(status.Body))
	}
	return fmt.Sprint(err)
}

type result struct {
	Value any
	Err   string
}

func both(v any, err error) any { return result{v, said(err)} }

func (s side) health(q *api.QueryOptions, tags ...string) any {
	v, _, err := s.Health().ServiceMultipleTags("order", tags, false, q)
	return both(v, err)
}

func (s side) index(service string, q *api.QueryOptions) uint64 {
	_, meta, err := s.Health().Service(service, "", false, q)
	if err != nil {
		return 0
	}
	return meta.LastIndex
}

// moved says whether the index of a service moves when do is done.
func (s side) moved(service string, do func() error) any {
	before := s.index(service, nil)
	err := do()
	return both(s.index(service, nil) > before, err)
}

// woken says whether a blocking query on the service comes back before its
// wait is over when do is done.
func (s side) woken(service string, wait time.Duration, do func() error) any {
	index := s.index(service, nil)
	type back struct {
		index uint64
		err   error
	}
	done := make(chan back, 1)
	go func() {
		_, meta, err := s.Health().Service(service, "", false, &api.QueryOptions{WaitIndex: index, WaitTime: wait})
		if err != nil {
			done <- back{0, err}
			return
		}
		done <- back{meta.LastIndex, nil}
	}()
	time.Sleep(200 * time.Millisecond) // so that the query waits
	err := do()
	b := <-done
	return both([]any{b.index > index, b.index < index, said(b.err)}, err)
}

func order(id string, port int, checks ...*api.AgentServiceCheck) *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{
		ID: id, Name: "order", Address: "127.0.0.9", Port: port, Tags: []string{"v1", "blue"},
		Meta: map[string]string{"version": "1"}, Checks: checks, Weights: &api.AgentWeights{Passing: 3, Warning: 1},
		Locality: &api.Locality{Region: "eu", Zone: "a"},
	}
}

func ttl(id, status string) *api.AgentServiceCheck {
	return &api.AgentServiceCheck{CheckID: id, TTL: "10m", Status: status, DeregisterCriticalServiceAfter: "1m"}
}

func probe(status string) *api.AgentServiceCheck {
	return &api.AgentServiceCheck{HTTP: "http://127.0.0.1:1/readyz", Interval: "1h", Timeout: "2s", Status: status, FailuresBeforeCritical: 2}
}

// pair is a real Consul and the fake one, started alike.
type pair struct {
	server       *consultest.Server
	agent        *consultest.Agent
	theirs, ours side
}

func newPair(t *testing.T) pair {
	t.Helper()
	server, agent := consultest.Real(t), consultest.New(t)
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return pair{
		server: server, agent: agent,
		theirs: side{server.Client(), &http.Client{Transport: tr}, "http://" + server.Addr()},
		ours:   side{agent.Client(), agent.HTTPClient(), "http://" + consultest.Address},
	}
}

// differ says where the answers differ; indexes, and what tells one machine
// from another, are left out.
func differ(theirs, ours any) string {
	return cmp.Diff(theirs, ours,
		cmpopts.EquateEmpty(),
		cmpopts.IgnoreFields(api.Node{}, "ID", "TaggedAddresses", "Meta", "CreateIndex", "ModifyIndex"),
		cmpopts.IgnoreFields(api.AgentService{}, "CreateIndex", "ModifyIndex"),
		cmpopts.IgnoreFields(api.HealthCheck{}, "CreateIndex", "ModifyIndex"),
		cmpopts.IgnoreFields(api.CatalogService{}, "ID", "TaggedAddresses", "NodeMeta", "CreateIndex", "ModifyIndex"),
		cmpopts.SortSlices(func(a, b *api.HealthCheck) bool { return a.CheckID < b.CheckID }),
		cmpopts.SortSlices(func(a, b *api.ServiceEntry) bool { return a.Service.ID < b.Service.ID }),
		cmpopts.SortSlices(func(a, b *api.CatalogService) bool { return a.ServiceID < b.ServiceID }),
		cmpopts.SortSlices(func(a, b string) bool { return a < b }),
	)
}

func TestAgentAnswersAsConsulDoes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, st := range script() {
		want := make(chan any, 1)
		go func() { want <- st.do(p.theirs) }()
		got := st.do(p.ours)
		if diff := differ(<-want, got); diff != "" {
			t.Errorf("%s: the fake's answer differs from Consul's (-consul +fake):\n%s", st.name, diff)
		}
	}
}

func TestAgentRestartsAndForgetsAsConsulDoes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, s := range []side{p.theirs, p.ours} {
		register(t, s.Client, order("order-1", 9001, probe("passing"),
			&api.AgentServiceCheck{CheckID: "heard", TTL: "10m", Status: "passing"},
			&api.AgentServiceCheck{CheckID: "silent", TTL: "10m", Status: "passing"}))
		if err := errors.Join(
			s.Agent().UpdateTTL("heard", "all well", "pass"),
			s.Agent().EnableServiceMaintenance("order-1", "disk swap"),
		); err != nil {
			t.Fatal(err)
		}
	}
	p.agent.Restart()
	p.server.Restart()
	alike(t, p, "health after a restart", func(s side) any { return s.health(nil) })
	alike(t, p, "checks after a restart", func(s side) any { return both(s.Agent().Checks()) })
	alike(t, p, "services after a restart", func(s side) any { return both(s.Agent().Services()) })
	p.agent.Wipe()
	p.server.Wipe()
	alike(t, p, "health after a wipe", func(s side) any { return s.health(nil) })
	alike(t, p, "services after a wipe", func(s side) any { return both(s.Agent().Services()) })
	alike(t, p, "the catalog after a wipe", func(s side) any { v, _, err := s.Catalog().Services(nil); return both(v, err) })
}

// alike waits until both answer alike: Consul's agent brings the catalog into
// line some time after its start.
func alike(t *testing.T, p pair, what string, do func(s side) any) {
	t.Helper()
	var diff string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if diff = differ(do(p.theirs), do(p.ours)); diff == "" {
			return
		}
	}
	t.Errorf("%s: the fake's answer differs from Consul's (-consul +fake):\n%s", what, diff)
}
