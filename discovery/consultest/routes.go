package consultest

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// endpoint answers one request. It is called with mu held, and may give it up
// while it waits.
type endpoint func(r *http.Request) answer

func (a *Agent) routes() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern string, e endpoint) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { a.run(w, r, e) })
	}
	handle("GET /v1/agent/self", a.getSelf)
	handle("GET /v1/agent/services", a.getServices)
	handle("GET /v1/agent/service/{id...}", a.getService)
	handle("GET /v1/agent/checks", a.getChecks)
	handle("PUT /v1/agent/service/register", a.putRegister)
	handle("PUT /v1/agent/service/deregister/{id...}", a.putDeregister)
	handle("PUT /v1/agent/service/maintenance/{id...}", a.putServiceMaintenance)
	handle("PUT /v1/agent/maintenance", a.putNodeMaintenance)
	handle("PUT /v1/agent/check/update/{id...}", a.putUpdate)
	handle("PUT /v1/agent/check/pass/{id...}", a.putResult("passing"))
	handle("PUT /v1/agent/check/warn/{id...}", a.putResult("warning"))
	handle("PUT /v1/agent/check/fail/{id...}", a.putResult("critical"))
	handle("PUT /v1/agent/check/register", a.putCheckRegister)
	handle("PUT /v1/agent/check/deregister/{id...}", a.putCheckDeregister)

	handle("GET /v1/health/service/{name...}", a.getHealthService)
	handle("GET /v1/health/checks/{name...}", a.getHealthChecks)
	handle("GET /v1/health/node/{node...}", a.getNodeChecks)
	handle("GET /v1/health/state/{state...}", a.getHealthState)
	handle("GET /v1/catalog/node-services/{node...}", a.getNodeServices)
	handle("GET /v1/catalog/services", a.getCatalogServices)
	handle("GET /v1/catalog/service/{name...}", a.getCatalogService)
	handle("PUT /v1/catalog/register", a.putCatalogRegister)
	handle("PUT /v1/catalog/deregister", a.putCatalogDeregister)
	handle("GET /v1/kv/{key...}", a.getKey)
	handle("PUT /v1/kv/{key...}", a.putKey)
	handle("GET /v1/status/leader", a.getLeader)

	handle("/v1/", func(*http.Request) answer {
		ans := failed(&httpError{http.StatusNotFound, "Invalid URL path: not a recognized HTTP API endpoint\n"})
		ans.header.Del("X-Consul-Default-Acl-Policy")
		return ans
	})
	return mux
}

// serve is the way of every request: note it, let the faults have their say,
// then the endpoint.
func (a *Agent) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		Refuse().instead(a, w, r)
		return
	}
	a.handlers.Add(1)
	a.requests = append(a.requests, Request{At: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.Query()})
	a.mu.Unlock()
	defer a.handlers.Done()
	if r.Context().Value(overLimit{}) != nil {
		w.Header().Set("Connection", "close")
		write(w, failed(&httpError{http.StatusTooManyRequests, "Your IP is issuing too many concurrent connections, please rate limit your calls\n"}))
		return
	}
	if a.pass(w, r) {
		a.mux.ServeHTTP(w, r)
	}
}

func (a *Agent) run(w http.ResponseWriter, r *http.Request, e endpoint) {
	a.mu.Lock()
	ans := failed(errNoToken)
	if a.acl.known(tokenOf(r)) || strings.HasPrefix(r.URL.Path, "/v1/status/") {
		ans = e(r)
	}
	if a.acl.on && ans.header.Get("X-Consul-Default-Acl-Policy") != "" {
		ans.header.Set("X-Consul-Default-Acl-Policy", "deny")
	}
	a.mu.Unlock()
	if !a.pass(w, r) {
		return
	}
	if f := a.fault(r.URL.Path); f.alter != nil {
		f.alter(a, w, r, ans)
		return
	}
	write(w, ans)
}

// pass holds a request for as long as a fault wants it, and says whether it
// may go on; if not, it has been dealt with.
func (a *Agent) pass(w http.ResponseWriter, r *http.Request) bool {
	a.mu.Lock()
	a.waitUntil(r.Context(), 0, func() bool { return !a.faultFor(r.URL.Path).paused })
	f := a.faultFor(r.URL.Path)
	a.mu.Unlock()
	switch {
	case f.silent:
		select {
		case <-r.Context().Done():
		case <-a.done:
		}
		return false
	case f.instead != nil && (!f.queries || r.Method == http.MethodGet):
		f.instead(a, w, r)
		return false
	}
	return r.Context().Err() == nil
}

// reach gives up mu while a write waits in vain for a leader, for as long as
// Consul does.
func (a *Agent) reach(r *http.Request) {
	a.waitUntil(r.Context(), rpcHold, func() bool { return a.leader })
}

// accepted is the answer to a write to the agent.
func (a *Agent) accepted(r *http.Request, err error) answer {
	if err != nil {
		return failed(err)
	}
	a.reach(r)
	return encode(nil)
}

func decode(r *http.Request, v any) error {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		return badRequest("Request decode failed: %v", err)
	}
	return nil
}
