package consultest

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// waitDefault and waitMax are Consul's default_query_time and
	// max_query_time.
	waitDefault = 5 * time.Minute
	waitMax     = 10 * time.Minute
	// rpcHold is Consul's rpc_hold_timeout: how long a call that needs a leader
	// waits for one.
	rpcHold = 7 * time.Second
)

// query is what the parameters common to all of Consul's queries say.
type query struct {
	index      uint64
	wait       time.Duration
	stale      bool
	consistent bool
	streaming  bool // answered by the streaming backend; health queries only
	params     url.Values
	err        error
}

func parseQuery(r *http.Request) query {
	p := r.URL.Query()
	q := query{wait: waitDefault, stale: p.Has("stale"), consistent: p.Has("consistent"), params: p}
	var err error
	if s := p.Get("index"); s != "" {
		if q.index, err = strconv.ParseUint(s, 10, 64); err != nil {
			q.err = badRequest("Invalid index")
		}
	}
	if s := p.Get("wait"); s != "" {
		if q.wait, err = time.ParseDuration(s); err != nil {
			q.err = badRequest("Invalid wait time")
		}
	}
	if q.wait <= 0 {
		q.wait = waitDefault
	}
	q.wait = min(q.wait, waitMax)
	q.streaming = q.index > 0 && strings.HasPrefix(r.URL.Path, "/v1/health/service/") && !p.Has("near") && !p.Has("merge-central-config")
	return q
}

// answer is what is to be sent.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func write(w http.ResponseWriter, ans answer) {
	maps.Copy(w.Header(), ans.header)
	w.WriteHeader(ans.status)
	// A client that has gone is no news.
	_, _ = w.Write(ans.body)
}

// encode makes an answer of a value: JSON, or nothing for nil.
func encode(v any) answer {
	ans := answer{status: http.StatusOK, header: usual()}
	if v == nil {
		return ans
	}
	body, err := json.Marshal(v)
	if err != nil {
		return failed(err)
	}
	ans.header.Set("Content-Type", "application/json")
	ans.body = body
	return ans
}

// usual returns the headers that every answer of Consul's has.
func usual() http.Header {
	return http.Header{"Vary": {"Accept-Encoding"}, "X-Consul-Default-Acl-Policy": {"allow"}}
}

func failed(err error) answer {
	ans := answer{status: http.StatusInternalServerError, header: usual(), body: []byte(err.Error())}
	if e, ok := errors.AsType[*httpError](err); ok {
		ans.status = e.status
	}
	ans.header.Set("Content-Type", "text/plain; charset=utf-8")
	return ans
}

// answer makes an answer with the headers of a query. The caller holds mu.
func (a *Agent) answer(q query, index uint64, v any) answer {
	ans := encode(v)
	known, contact, backend, consistency := a.leader, time.Duration(0), "blocking-query", "leader"
	if !a.leader {
		contact = time.Since(a.leaderLost)
	}
	switch {
	case q.stale:
		consistency = "stale"
	case q.consistent:
		consistency = "consistent"
	}
	if q.streaming {
		// The streaming backend knows nothing about the leader.
		known, contact, backend = false, 0, "streaming"
	}
	ans.header.Set("X-Consul-Index", strconv.FormatUint(max(index, 1), 10))
	ans.header.Set("X-Consul-Knownleader", strconv.FormatBool(known))
	ans.header.Set("X-Consul-Lastcontact", strconv.FormatInt(contact.Milliseconds(), 10))
	ans.header.Set("X-Consul-Effective-Consistency", consistency)
	if strings.HasPrefix(ans.header.Get("Content-Type"), "application/json") {
		ans.header.Set("X-Consul-Query-Backend", backend)
	}
	return ans
}

// block waits, as a blocking query does, until the index is above the one
// asked for. It returns at once for queries without one, and when a fault
// answers instead. The caller holds mu.
func (a *Agent) block(r *http.Request, q query, index func() uint64) error {
	if err := a.readable(r, q); err != nil || q.index == 0 {
		return err
	}
	a.hold(r, a.jittered(q.wait), func() bool { return index() > q.index || a.revoked(r, q, false) != nil })
	return a.revoked(r, q, index() > q.index)
}

// revoked is the error of a query whose token was deleted while it waited: the
// streaming backend notices at once, the other when the query is woken.
func (a *Agent) revoked(r *http.Request, q query, woken bool) error {
	if (woken || q.streaming) && !a.acl.known(tokenOf(r)) {
		return errNoToken
	}
	return nil
}

// readable waits for a leader, if the query needs one.
func (a *Agent) readable(r *http.Request, q query) error {
	if q.streaming || q.stale || a.leader || a.waitUntil(r.Context(), rpcHold, func() bool { return a.leader }) {
		return nil
	}
	return &httpError{http.StatusInternalServerError, "No cluster leader"}
}

// jittered is the wait with up to a 16th more, which Consul adds so that
// watchers don't come back all at once.
func (a *Agent) jittered(wait time.Duration) time.Duration {
	return wait + time.Duration(a.jitter.Int64N(int64(wait/16)+1))
}

// hold waits until there is something to tell, the wait is over, or a fault
// answers instead.
func (a *Agent) hold(r *http.Request, wait time.Duration, news func() bool) {
	a.held[r] = struct{}{}
	defer delete(a.held, r)
	a.waitUntil(r.Context(), wait, func() bool { return news() || a.faultFor(r.URL.Path).instead != nil })
}
