package consultest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/hashicorp/consul/api"
)

// The endpoints of /v1/agent: the agent's own view.

func (a *Agent) getSelf(r *http.Request) answer {
	if err := a.acl.permit(r, "agent:read", a.name); err != nil {
		return failed(err)
	}
	role := "node"
	if a.serves() {
		role = "consul"
	}
	return encode(map[string]any{
		"Config": map[string]any{
			"Datacenter": Datacenter, "PrimaryDatacenter": Datacenter, "NodeName": a.name, "NodeID": a.nodeID,
			"Server": a.serves(), "Version": "1.22.3", "Revision": "", "BuildDate": "",
		},
		"DebugConfig": map[string]any{"AdvertiseAddrLAN": a.address, "AdvertiseAddrWAN": a.address},
		"Member":      api.AgentMember{Name: a.name, Addr: a.address, Port: 8301, Tags: map[string]string{"dc": Datacenter, "id": a.nodeID, "role": role}, Status: 1},
		"Meta":        map[string]string{"consul-network-segment": "", "consul-version": "1.22.3"},
	})
}

var serviceFields = map[string]func(*api.AgentService) string{
	"ID":      func(s *api.AgentService) string { return s.ID },
	"Service": func(s *api.AgentService) string { return s.Service },
	"Address": func(s *api.AgentService) string { return s.Address },
}

func (a *Agent) getServices(r *http.Request) answer {
	keep, err := filter(r.URL.Query().Get("filter"), serviceFields)
	if err != nil {
		return failed(err)
	}
	out := map[string]*api.AgentService{}
	for id, s := range a.local.services {
		v := a.seen(s)
		if !s.deleted && keep(v) && a.acl.sees(r, "service:read") {
			out[id] = v
		}
	}
	return encode(out)
}

// seen is the service as the agent shows it.
func (a *Agent) seen(s *localService) *api.AgentService {
	v := s.AgentService
	v.Datacenter = Datacenter
	v.Port = v.DefaultPort()
	if v.Weights.Passing == 0 {
		v.Weights.Passing = 1
	}
	return &v
}

// getService blocks on a hash of the entry rather than on an index.
func (a *Agent) getService(r *http.Request) answer {
	id := r.PathValue("id")
	q := parseQuery(r)
	if q.err != nil {
		return failed(q.err)
	}
	var hash string
	look := func() *api.AgentService {
		s := a.local.services[id]
		if s == nil || s.deleted {
			return nil
		}
		v := a.seen(s)
		body, err := json.Marshal(v)
		if err != nil {
			return nil
		}
		sum := sha256.Sum256(body)
		hash = hex.EncodeToString(sum[:8])
		v.ContentHash = hash
		return v
	}
	s := look()
	if want := q.params.Get("hash"); want != "" {
		a.hold(r, q.wait, func() bool {
			s = look()
			return s == nil || hash != want
		})
	}
	if s == nil {
		return failed(&httpError{http.StatusNotFound, "unknown service ID: " + id})
	}
	if err := a.acl.permit(r, "service:read", s.Service); err != nil {
		return failed(err)
	}
	ans := encode(s)
	ans.header.Set("X-Consul-Contenthash", hash)
	return ans
}

var checkFields = map[string]func(*api.HealthCheck) string{
	"CheckID":     func(c *api.HealthCheck) string { return c.CheckID },
	"ServiceID":   func(c *api.HealthCheck) string { return c.ServiceID },
	"ServiceName": func(c *api.HealthCheck) string { return c.ServiceName },
	"Status":      func(c *api.HealthCheck) string { return c.Status },
	"Notes":       func(c *api.HealthCheck) string { return c.Notes },
	"Type":        func(c *api.HealthCheck) string { return c.Type },
}

func (a *Agent) getChecks(r *http.Request) answer {
	keep, err := filter(r.URL.Query().Get("filter"), checkFields)
	if err != nil {
		return failed(err)
	}
	out := map[string]*api.HealthCheck{}
	for id, c := range a.local.checks {
		if v := c.HealthCheck; !c.deleted && keep(&v) && a.acl.sees(r, "service:read") {
			out[id] = &v
		}
	}
	return encode(out)
}

func (a *Agent) putRegister(r *http.Request) answer {
	var reg api.AgentServiceRegistration
	err := decode(r, &reg)
	if err == nil && reg.Name != "" {
		err = a.acl.permit(r, "service:write", reg.Name)
	}
	if err == nil {
		p := r.URL.Query()
		flag := "replace-existing-checks"
		err = a.register(&reg, p.Has(flag) && (p.Get(flag) == "" || p.Get(flag) == "true"), tokenOf(r))
	}
	return a.accepted(r, err)
}

// writableService is the service that the request is about, which its token may
// write.
func (a *Agent) writableService(r *http.Request) (*localService, error) {
	s, err := a.service(r.PathValue("id"))
	if err == nil {
		err = a.acl.permit(r, "service:write", s.Service)
	}
	return s, err
}

func (a *Agent) putDeregister(r *http.Request) answer {
	s, err := a.writableService(r)
	if err == nil {
		a.remove(s.ID)
	}
	return a.accepted(r, err)
}

func (a *Agent) putServiceMaintenance(r *http.Request) answer {
	enable, err := flag(r)
	if err != nil {
		return failed(err)
	}
	s, err := a.writableService(r)
	if err == nil {
		a.maintain(s, enable, r.URL.Query().Get("reason"), tokenOf(r))
	}
	return a.accepted(r, err)
}

func (a *Agent) putNodeMaintenance(r *http.Request) answer {
	enable, err := flag(r)
	if err == nil {
		err = a.acl.permit(r, "node:write", a.name)
	}
	if err == nil {
		a.maintain(nil, enable, r.URL.Query().Get("reason"), tokenOf(r))
	}
	return a.accepted(r, err)
}

func flag(r *http.Request) (bool, error) {
	p := r.URL.Query()
	if !p.Has("enable") {
		return false, badRequest("Missing value for enable")
	}
	on, err := strconv.ParseBool(p.Get("enable"))
	if err != nil {
		return false, badRequest("Invalid value for enable: %q", p.Get("enable"))
	}
	return on, nil
}

func (a *Agent) putUpdate(r *http.Request) answer {
	var u struct{ Status, Output string }
	if err := decode(r, &u); err != nil {
		return failed(err)
	}
	switch u.Status {
	case api.HealthPassing, api.HealthWarning, api.HealthCritical:
	default:
		return failed(badRequest("Invalid check status: '%s'", u.Status))
	}
	return a.beaten(r, u.Status, u.Output)
}

func (a *Agent) beaten(r *http.Request, status, output string) answer {
	c, err := a.check(r.PathValue("id"))
	if err == nil {
		err = a.acl.permit(r, "service:write", c.ServiceName)
	}
	if err == nil {
		err = a.ttlBeat(c, status, output)
	}
	return a.accepted(r, err)
}

func (a *Agent) putResult(status string) endpoint {
	return func(r *http.Request) answer {
		return a.beaten(r, status, r.URL.Query().Get("note"))
	}
}
