package consultest

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is a way in which requests go wrong; see Break.
type Fault struct {
	refuse bool // no connection
	silent bool // read, never answered
	paused bool // read, answered after the fault has been mended
	// instead answers in place of the endpoint, and at once: also a blocking
	// query that waits already. queries keeps it to GET.
	instead func(a *Agent, w http.ResponseWriter, r *http.Request)
	queries bool
	// alter sends what the endpoint has answered.
	alter func(a *Agent, w http.ResponseWriter, r *http.Request, ans answer)
}

// Break lets every request whose path begins with the prefix ("" means all) go
// wrong in the given way until Mend. Queries that wait already are hit as well.
// A prefix has one fault at a time, and the longest prefix wins.
func (a *Agent) Break(prefix string, f Fault) {
	a.mu.Lock()
	a.faults[prefix] = f
	a.notify()
	a.mu.Unlock()
	if f.refuse && prefix == "" {
		a.cut()
	}
}

// Mend ends the faults of the given prefixes, or all of them if none is given.
func (a *Agent) Mend(prefixes ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(prefixes) == 0 {
		clear(a.faults)
	}
	for _, p := range prefixes {
		delete(a.faults, p)
	}
	a.notify()
}

// Refuse is a Consul that is not there: connections are cut and new ones
// refused. With a prefix, the connection that brings a request is closed
// without an answer.
func Refuse() Fault {
	return Fault{refuse: true, instead: func(_ *Agent, w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			c.Close()
		}
	}}
}

// Silent is a Consul that accepts connections and requests and never answers:
// a request that it swallowed stays without an answer after Mend too. What was
// asked for does not happen.
func Silent() Fault { return Fault{silent: true} }

// Paused is a Consul that was stopped (SIGSTOP): requests wait, and happen and
// are answered after Mend. The TTLs run on meanwhile.
func Paused() Fault { return Fault{paused: true} }

// Fail answers every request with the status and body, and does nothing.
func Fail(status int, body string) Fault {
	return Fault{instead: func(_ *Agent, w http.ResponseWriter, _ *http.Request) {
		http.Error(w, body, status)
	}}
}

// Answer answers every request with the status and the body, as JSON, and does
// nothing.
func Answer(status int, body string) Fault {
	return Fault{instead: func(_ *Agent, w http.ResponseWriter, _ *http.Request) {
		write(w, answer{status: status, header: http.Header{"Content-Type": {"application/json"}, "X-Consul-Index": {"7"}, "X-Consul-Knownleader": {"true"}}, body: []byte(body)})
	}}
}

// HTML answers every request with 200 and a web page, as a proxy or a captive
// portal in between does.
func HTML() Fault {
	return Fault{instead: func(_ *Agent, w http.ResponseWriter, _ *http.Request) {
		write(w, answer{status: http.StatusOK, header: http.Header{"Content-Type": {"text/html"}}, body: []byte("<!doctype html><title>Sign in</title>")})
	}}
}

// Empty answers every query at once with 200, an empty list and the given
// index; writes go on as ever. With index 1 it is what an agent says that does
// not know yet.
func Empty(index uint64) Fault {
	return Fault{queries: true, instead: func(a *Agent, w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		ans := a.answer(parseQuery(r), index, nothing(r))
		a.mu.Unlock()
		write(w, ans)
	}}
}

// Filtered answers every query at once with an empty list, as after a token
// lost its rights. The header X-Consul-Results-Filtered-By-ACLs comes with
// queries without an index only; Consul's streaming backend does not send it.
func Filtered() Fault {
	return emptied("X-Consul-Results-Filtered-By-Acls", "true")
}

// Anonymous answers every query at once with an empty list, as for a token
// that is missing while the default policy is deny: only the header
// X-Consul-Default-ACL-Policy tells.
func Anonymous() Fault {
	return emptied("X-Consul-Default-Acl-Policy", "deny")
}

// nothing is the value of an empty answer: a list almost everywhere.
func nothing(r *http.Request) any {
	if strings.HasPrefix(r.URL.Path, "/v1/catalog/node-services/") {
		return nodeServices{}
	}
	return []struct{}{}
}

func emptied(header, value string) Fault {
	return Fault{queries: true, instead: func(a *Agent, w http.ResponseWriter, r *http.Request) {
		q := parseQuery(r)
		a.mu.Lock()
		index := q.index
		if index == 0 {
			index = a.catalog.index
		}
		ans := a.answer(q, index, nothing(r))
		a.mu.Unlock()
		if !q.streaming || header == "X-Consul-Default-Acl-Policy" {
			ans.header.Set(header, value)
		}
		write(w, ans)
	}}
}

// DropIndexHeader leaves X-Consul-Index out of every answer, as some proxies
// do.
func DropIndexHeader() Fault {
	return Fault{alter: func(_ *Agent, w http.ResponseWriter, _ *http.Request, ans answer) {
		ans.header.Del("X-Consul-Index")
		write(w, ans)
	}}
}

// Truncate closes the connection after n bytes of each answer's body, or at
// half of it if it is not longer than that.
func Truncate(n int) Fault {
	return Fault{alter: func(_ *Agent, w http.ResponseWriter, _ *http.Request, ans answer) {
		sent := n
		if sent >= len(ans.body) {
			sent = len(ans.body) / 2
		}
		// A handler that says more than it sends makes net/http close the
		// connection.
		ans.header.Set("Content-Length", strconv.Itoa(max(len(ans.body), 1)))
		ans.body = ans.body[:sent]
		write(w, ans)
	}}
}

// Slow sends each answer's body n bytes at a time, with a pause in between.
func Slow(n int, pause time.Duration) Fault {
	return Fault{alter: func(a *Agent, w http.ResponseWriter, r *http.Request, ans answer) {
		rest := ans.body
		ans.header.Set("Content-Length", strconv.Itoa(len(rest)))
		ans.body = nil
		write(w, ans)
		timer := time.NewTimer(pause)
		defer timer.Stop()
		for len(rest) > 0 {
			k := min(max(n, 1), len(rest))
			if _, err := w.Write(rest[:k]); err != nil {
				return
			}
			rest = rest[k:]
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			timer.Reset(pause)
			select {
			case <-timer.C:
			case <-r.Context().Done():
				return
			case <-a.done:
				return
			}
		}
	}}
}

// fault returns the fault that holds for the path, the zero Fault if none.
func (a *Agent) fault(path string) Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.faultFor(path)
}

// faultFor is fault for a caller who holds mu.
func (a *Agent) faultFor(path string) Fault {
	var found Fault
	longest := -1
	for prefix, f := range a.faults {
		if strings.HasPrefix(path, prefix) && len(prefix) > longest {
			longest, found = len(prefix), f
		}
	}
	return found
}
