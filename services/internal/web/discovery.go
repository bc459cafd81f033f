package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

// Discovery is the page /debug/discovery: what this process knows of others,
// and how it stands with Consul itself.
type Discovery struct {
	// Mesh tells the sets in use. Required.
	Mesh interface {
		Snapshots() []*catalog.Snapshot
		Balancer(service string) *balancer.Balancer
	}
	// Registration tells the state of our own entry, false before there is
	// one. nil means that there is none.
	Registration func() (id string, status registration.Status, ok bool)
}

type discoveryPage struct {
	Registration *registrationView `json:"registration"` // null: not registered so far
	Services     []serviceView     `json:"services"`
}

type registrationView struct {
	ID    string             `json:"id"`
	State registration.State `json:"state"`
	Why   string             `json:"why"`
	Since time.Time          `json:"since"`
}

type serviceView struct {
	Service   string         `json:"service"`
	Since     time.Time      `json:"since"`           // when the set came to be what it is
	Proven    *time.Time     `json:"proven"`          // when it was last proven; null: never
	AgeMS     int64          `json:"age_ms"`          // since then, or since the set came
	Error     string         `json:"error,omitempty"` // the trouble with Consul since then
	FromDisk  bool           `json:"from_disk"`       // the set is the one on disk: Consul has not answered so far
	Panic     bool           `json:"panic"`           // critical instances are used, for want of better ones
	Ready     int            `json:"ready"`
	Instances []instanceView `json:"instances"`
}

type instanceView struct {
	ID           string        `json:"id"`
	Node         string        `json:"node,omitempty"`
	Addr         string        `json:"addr"`
	State        catalog.State `json:"state"`
	Reason       string        `json:"reason,omitempty"`
	Weight       int           `json:"weight"`
	InFlight     int           `json:"in_flight"`
	MissingForMS *int64        `json:"missing_for_ms,omitempty"` // vanished from Consul; used for so long still
	Ejected      *ejectedView  `json:"ejected,omitempty"`        // out of use for failing
	Health       string        `json:"health,omitempty"`         // by the outcomes of our requests: healthy, suspect, on trial, ejected
}

type ejectedView struct {
	Since  time.Time `json:"since"`
	ForMS  int64     `json:"for_ms"` // still
	Reason string    `json:"reason"`
}

func (d Discovery) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	page := discoveryPage{Services: []serviceView{}}
	if d.Registration != nil {
		if id, s, ok := d.Registration(); ok {
			page.Registration = &registrationView{ID: id, State: s.State, Why: s.Why, Since: s.Since}
		}
	}
	for _, s := range d.Mesh.Snapshots() {
		page.Services = append(page.Services, viewService(s, d.Mesh.Balancer(s.Service()), now))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	_ = out.Encode(page) // the reader has gone: nobody is left to tell
}

// viewService shows a set; b is nil for a service that nothing was sent to.
func viewService(s *catalog.Snapshot, b *balancer.Balancer, now time.Time) serviceView {
	v := serviceView{Service: s.Service(), Since: s.At(), Instances: []instanceView{}}
	proven, err := s.Freshness()
	if err != nil {
		v.Error = err.Error()
		v.FromDisk = errors.Is(err, catalog.ErrFromDisk)
	}
	if proven.IsZero() {
		v.AgeMS = now.Sub(s.At()).Milliseconds()
	} else {
		v.Proven = &proven
		v.AgeMS = now.Sub(proven).Milliseconds()
	}
	endpoints := map[catalog.Key]*balancer.Endpoint{}
	if b != nil {
		b.Use(s, now) // the page shows what the next request would see
		v.Panic = b.Counts(now).Panic
		for _, e := range b.Endpoints() {
			endpoints[e.Instance().Key()] = e
		}
	}
	for i := range s.All() {
		if i.State.Ready() {
			v.Ready++
		}
		shown := instanceView{
			ID: i.ID, Node: i.Node, Addr: i.Addr(), State: i.State, Reason: i.Reason, Weight: i.Weight,
		}
		if e := endpoints[i.Key()]; e != nil {
			shown.InFlight = e.InFlight()
			if x := e.Ejection(); !x.Over(now) {
				shown.Ejected = &ejectedView{Since: x.At, ForMS: x.Until.Sub(now).Milliseconds(), Reason: x.Reason.String()}
			}
			shown.Health = e.State(now).String()
		}
		if i.Missing() {
			left := max(0, i.MissingUntil.Sub(now).Milliseconds())
			shown.MissingForMS = &left
		}
		v.Instances = append(v.Instances, shown)
	}
	return v
}
