package consultest

import (
	"fmt"
	"net/http"
)

// putCheckDeregister takes one check out, and leaves its service.
func (a *Agent) putCheckDeregister(r *http.Request) answer {
	id := r.PathValue("id")
	c := a.local.checks[id]
	if c == nil || c.deleted {
		return failed(&httpError{http.StatusNotFound, fmt.Sprintf("Unknown check ID %q. Ensure that the check ID is passed, not the check name.", id)})
	}
	a.dropCheck(c)
	a.sync()
	return a.accepted(r, nil)
}
