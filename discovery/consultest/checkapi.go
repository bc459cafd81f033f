package consultest

import (
	"fmt"
	"net/http"

	"github.com/hashicorp/consul/api"
)

// putCheckRegister adds one check to a service that is there, or replaces it.
func (a *Agent) putCheckRegister(r *http.Request) answer {
	var reg api.AgentCheckRegistration
	if err := decode(r, &reg); err != nil {
		return failed(err)
	}
	if reg.Name == "" {
		return failed(badRequest("Missing check name"))
	}
	s := a.local.services[reg.ServiceID]
	if s == nil || s.deleted {
		return failed(&httpError{http.StatusNotFound, fmt.Sprintf("ServiceID %q does not exist", reg.ServiceID)})
	}
	err := a.acl.permit(r, "service:write", s.Service)
	if err == nil {
		err = a.addCheck(s, reg, tokenOf(r))
	}
	return a.accepted(r, err)
}

func (a *Agent) addCheck(s *localService, reg api.AgentCheckRegistration, token string) error {
	d := reg.AgentServiceCheck
	d.CheckID, d.Name, d.Notes = reg.ID, reg.Name, reg.Notes
	if d.CheckID == "" {
		d.CheckID = reg.Name
	}
	c, err := newCheck(a.name, &api.AgentServiceRegistration{ID: s.ID, Name: s.Service, Tags: s.Tags}, &d, 0, 1)
	if err != nil {
		return err
	}
	c.token = token
	a.putCheck(c)
	a.sync()
	return nil
}

// putCheckDeregister takes one check out, and leaves its service.
func (a *Agent) putCheckDeregister(r *http.Request) answer {
	c, err := a.check(r.PathValue("id"))
	if err == nil {
		err = a.acl.permit(r, "service:write", c.ServiceName)
	}
	if err != nil {
		return failed(err)
	}
	a.dropCheck(c)
	a.sync()
	return a.accepted(r, nil)
}
