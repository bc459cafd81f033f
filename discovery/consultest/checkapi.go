package consultest

import "net/http"

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
