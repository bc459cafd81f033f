package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call is a question as the script sees it.
type call struct {
	at      time.Time
	service string
	kind    kind
	index   uint64
	wait    time.Duration
	self    bool // asks for our own token
}

// reply is the answer of a script. The zero value is 200 with an empty list and
// no header at all.
type reply struct {
	status   int
	index    string
	leader   bool
	contact  string // in milliseconds; "" means 0
	streamed bool
	filtered bool
	deny     bool
	body     string
	after    time.Duration
	hang     bool  // until the caller gives up
	broken   error // instead of an answer
}

// script answers the API client without a network.
type script struct {
	answer func(call) reply // called with mu held

	mu     sync.Mutex
	calls  []call
	flying int // calls without an answer so far
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	q := r.URL.Query()
	c := call{at: time.Now(), self: r.URL.Path == "/v1/acl/token/self", service: strings.TrimPrefix(r.URL.Path, "/v1/health/service/")}
	c.index, _ = strconv.ParseUint(q.Get("index"), 10, 64)
	c.wait, _ = time.ParseDuration(q.Get("wait"))
	switch {
	case q.Has("filter"):
		c.kind = scan
	case q.Has("tag"):
		c.kind = audit
	case q.Has("index"):
		c.kind = block
	case !q.Has("stale"):
		c.kind = confirm
	}
	s.mu.Lock()
	s.calls = append(s.calls, c)
	s.flying++
	a := s.answer(c)
	s.mu.Unlock()
	defer s.do(func() { s.flying-- })
	var timer <-chan time.Time
	if !a.hang {
		t := time.NewTimer(a.after)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-timer:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if a.broken != nil {
		return nil, a.broken
	}
	h := http.Header{}
	set := func(name, value string, yes bool) {
		if yes {
			h.Set(name, value)
		}
	}
	set("X-Consul-Index", a.index, a.index != "")
	set("X-Consul-KnownLeader", strconv.FormatBool(a.leader), true)
	set("X-Consul-LastContact", "0", a.contact == "")
	set("X-Consul-LastContact", a.contact, a.contact != "")
	set("X-Consul-Query-Backend", "streaming", a.streamed)
	set("X-Consul-Query-Backend", "blocking-query", !a.streamed)
	set("X-Consul-Results-Filtered-By-ACLs", "true", a.filtered)
	set("X-Consul-Default-ACL-Policy", "deny", a.deny)
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.body == "" {
		a.body = "[]"
	}
	return &http.Response{StatusCode: a.status, Header: h, Body: io.NopCloser(strings.NewReader(a.body)), Request: r}, nil
}

// do changes what the script knows.
func (s *script) do(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// asked returns the calls so far of the kinds, or all.
func (s *script) asked(kinds ...kind) []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []call
	for _, c := range s.calls {
		for _, k := range kinds {
			if c.kind == k && !c.self {
				out = append(out, c)
			}
		}
	}
	return out
}

func (s *script) client(t testing.TB) *api.Client {
	t.Helper()
	client, err := api.NewClient(&api.Config{Address: "consul:8500", Scheme: "http", HttpClient: &http.Client{Transport: s}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// follow runs a Watcher on a script in a bubble.
func follow(t *testing.T, cfg Config, answer func(call) reply, test func(t *testing.T, w *Watcher, s *script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: answer}
		cfg.Client = s.client(t)
		w, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		test(t, w, s)
	})
}

// entry is one of Consul's, of the service order, with one check.
func entry(id string, change ...func(*api.ServiceEntry)) *api.ServiceEntry {
	e := &api.ServiceEntry{
		Node:    &api.Node{Node: "node", Address: "10.0.0.9"},
		Service: &api.AgentService{ID: id, Service: "order", Address: "host-" + id, Port: 80, Weights: api.AgentWeights{Passing: 1, Warning: 1}},
		Checks:  api.HealthChecks{{CheckID: id + ":rollcall", Status: api.HealthPassing}},
	}
	for _, c := range change {
		c(e)
	}
	return e
}

func check(status, output string) func(*api.ServiceEntry) {
	return func(e *api.ServiceEntry) { e.Checks[0].Status, e.Checks[0].Output = status, output }
}

func body(entries ...*api.ServiceEntry) string {
	if len(entries) == 0 {
		return "[]"
	}
	b, err := json.Marshal(entries)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func index(n int) string { return strconv.Itoa(n) }

// latest returns the set in use, as "id:state" or "id:state?" for missing ones,
// joined by blanks.
func latest(t *testing.T, w *Watcher) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := w.Latest(ctx, "order")
	if err != nil {
		return err.Error()
	}
	return show(s)
}

func show(s *catalog.Snapshot) string {
	var out []string
	for i := range s.All() {
		missing := ""
		if i.Missing() {
			missing = "?"
		}
		out = append(out, fmt.Sprintf("%s:%s%s", i.ID, i.State, missing))
	}
	return strings.Join(out, " ")
}

func wantLatest(t *testing.T, w *Watcher, want string) {
	t.Helper()
	if got := latest(t, w); got != want {
		t.Fatalf("latest: got %q; want %q", got, want)
	}
}

func trouble(t *testing.T, w *Watcher) error {
	t.Helper()
	s, err := w.Latest(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Freshness()
	return err
}
