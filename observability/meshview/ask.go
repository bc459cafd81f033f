package meshview

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// explanation is the answer to a question: whom this process would ask, and why not the
// others. Nothing is sent for it.
type explanation struct {
	Question string `json:"question"`
	Service  string `json:"service"`
	Path     string `json:"path,omitempty"` // that the service would get; empty: a service was asked about
	Rule     string `json:"rule,omitempty"` // of the gateway, by which the path goes there
	// Known says that this process follows the service, and so has a set to choose from.
	Known bool `json:"known"`
	// Choices are all instances, in the order in which they would be asked.
	Choices []choice `json:"choices"`
	// Words say the same in sentences.
	Words []string `json:"words"`
	// Try says that POST /mesh/try sends such a request.
	Try bool `json:"try"`
}

// choice is an instance that may be asked.
type choice struct {
	ID    string `json:"id"`
	Addr  string `json:"addr"`
	State string `json:"state"`
	// Turn is first, after, last or never.
	Turn string `json:"turn"`
	// Why it is its turn then, in a few words.
	Why     string  `json:"why"`
	Weight  int     `json:"weight"`
	Latency float64 `json:"latency_seconds"` // that is expected of it; 0: not known
	Load    int     `json:"in_flight"`
}

// The turns, in order.
const (
	turnFirst = "first" // of those the better of two drawn at random is asked
	turnAfter = "after" // when those before have failed the request, or none is there
	turnLast  = "last"
	turnNever = "never"
)

var turns = []string{turnFirst, turnAfter, turnLast, turnNever}

const maxQuestion = 2048

// question is one that was understood.
type question struct {
	text, service, path, rule string
}

// understand reads a question: a path, which begins with a slash, or the name of a
// service.
func (v *View) understand(text, host string) (question, *problem.Problem) {
	q := question{text: strings.TrimSpace(text)}
	switch {
	case q.text == "" || len(q.text) > maxQuestion:
		return q, problem.New(http.StatusBadRequest, "q is %d bytes; want a path such as /orders/1, or the name of a service, of 1 to %d bytes", len(q.text), maxQuestion)
	case q.text[0] != '/':
		if err := catalog.CheckService(q.text); err != nil {
			return q, problem.New(http.StatusBadRequest, "q is no path, and %v", err)
		}
		q.service = q.text
		return q, nil
	case v.cfg.Route == nil:
		return q, problem.New(http.StatusBadRequest, "q is a path, and this process has no routes; want the name of a service")
	}
	u, err := url.ParseRequestURI(q.text)
	if err != nil {
		return q, problem.New(http.StatusBadRequest, "q is %q; want a path that a URL can have", bounded(q.text))
	}
	route, ok := v.cfg.Route(host, u.EscapedPath())
	if !ok {
		return q, problem.New(http.StatusNotFound, "no route has %s: a request for it is answered 404", bounded(u.EscapedPath()))
	}
	q.service, q.path, q.rule = route.Service, route.Path, route.Rule
	if u.RawQuery != "" {
		q.path += "?" + u.RawQuery
	}
	return q, nil
}

func (v *View) serveAsk(w http.ResponseWriter, r *http.Request) {
	q, refused := v.understand(r.URL.Query().Get("q"), r.URL.Query().Get("host"))
	if refused != nil {
		problem.Write(w, r, refused)
		return
	}
	v.answer(w, v.explain(q))
}

// explain says whom this process would ask, by what it knows itself.
func (v *View) explain(q question) explanation {
	x := explanation{
		Question: q.text, Service: q.service, Path: q.path, Rule: q.rule,
		Choices: []choice{}, Words: []string{}, Try: v.cfg.Try != nil,
	}
	if q.path != "" {
		x.say("A request for %s goes to %s, by the route %s.", bounded(q.text), q.service, q.rule)
	}
	at, known := v.know(q.service)
	if known == nil {
		x.say("This process does not follow %s so far: the first request for it would have Consul asked, and wait for that.", q.service)
		return x
	}
	x.Known = true
	grpc := v.grpcOnly(q.service)
	for _, k := range known.Instances {
		turn, why := turnOf(k, known.Ready, grpc[keyOf(q.service, k.ID, k.Addr)], at)
		x.Choices = append(x.Choices, choice{
			ID: k.ID, Addr: k.Addr, State: k.State, Turn: turn, Why: why, Weight: k.Weight, Latency: k.Latency, Load: k.InFlight,
		})
	}
	slices.SortStableFunc(x.Choices, func(a, b choice) int {
		return cmp.Compare(slices.Index(turns, a.Turn), slices.Index(turns, b.Turn))
	})
	x.conclude(*known, at)
	return x
}

// know returns what this process knows of a service, and the time; nil: nothing.
func (v *View) know(service string) (time.Time, *knownService) {
	// As others read it: so it is the same that the page shows of them.
	text, err := json.Marshal(v.cfg.Mesh.Status())
	if err != nil {
		return time.Time{}, nil
	}
	d, err := readDocument(text)
	if err != nil {
		v.cfg.Log.Error("this process's own status can't be read", "error", err)
		return time.Time{}, nil
	}
	for n := range d.Services {
		if strings.EqualFold(d.Services[n].Service, service) {
			return d.At, &d.Services[n]
		}
	}
	return d.At, nil
}

// grpcOnly returns the keys of those instances that do not speak HTTP, as far as that is
// known.
func (v *View) grpcOnly(service string) map[string]bool {
	keys := map[string]bool{}
	for _, s := range v.latest().Services {
		if s.Name != service {
			continue
		}
		for _, i := range s.Instances {
			keys[i.Key] = i.Protocol == catalog.GRPC
		}
	}
	return keys
}

// turnOf says when an instance is asked, as docs/explanation/choosing.md has it.
func turnOf(k knownInstance, ready int, grpc bool, now time.Time) (turn, why string) {
	switch {
	case grpc || k.Protocol == catalog.GRPC:
		return turnNever, "it speaks gRPC: calls of gRPC go to it"
	case k.Deselected:
		return turnNever, "this process's selection leaves it out"
	case k.State == catalog.StateDraining.String():
		return turnNever, "it is draining: it said that it leaves"
	case k.State == catalog.StateMaintenance.String():
		return turnNever, "an operator has it in maintenance" + because(bounded(k.Reason))
	case k.State == catalog.StateCritical.String() && ready > 0:
		return turnLast, "a check fails" + because(bounded(k.Reason))
	case k.Ejected != nil:
		return turnLast, fmt.Sprintf("it is out of use for %s more: %s", rounded(k.Ejected.Until.Sub(now)), bounded(k.Ejected.Reason))
	case k.Reserve:
		return turnAfter, "it is of another datacenter"
	case k.Health == "suspect":
		return turnAfter, "it has just failed a request, or lets a connection wait"
	case k.State == catalog.StateCritical.String():
		return turnFirst, "a check fails, and no instance is better" + because(bounded(k.Reason))
	case k.Health == "on trial":
		return turnFirst, "it is on trial: one request at a time"
	case !k.MissingUntil.IsZero():
		return turnFirst, "the catalog lacks it, and it is still used for a while"
	}
	return turnFirst, "it is as good as any"
}

func (x *explanation) say(format string, args ...any) {
	x.Words = append(x.Words, fmt.Sprintf(format, args...))
}

// conclude says in sentences what the choices are.
func (x *explanation) conclude(known knownService, now time.Time) {
	n := map[string]int{}
	for _, c := range x.Choices {
		n[c.Turn]++
	}
	may := len(x.Choices) - n[turnNever]
	switch {
	case may == 0:
		x.say("None of its %d instances may be asked: the request fails at once.", len(x.Choices))
	case n[turnFirst] == 0:
		x.say("None of its %d instances is in good health: those that are left are tried.", len(x.Choices))
	case n[turnFirst] == 1:
		x.say("One of its %d instances is asked first.", len(x.Choices))
	default:
		x.say("Of its %d instances %d are asked first: of two that are drawn by weight, the one that is expected to answer sooner.", len(x.Choices), n[turnFirst])
	}
	if n[turnAfter]+n[turnLast] > 0 && n[turnFirst] > 0 {
		x.say("%d more are asked only when those have failed the request.", n[turnAfter]+n[turnLast])
	}
	if known.Panic {
		x.say("No instance passes its checks, so critical ones are asked.")
	}
	if !known.Proven.IsZero() {
		x.say("Consul last confirmed this set %s ago.", rounded(now.Sub(known.Proven)))
	}
	if known.Error != "" {
		x.say("Since then there is trouble: %s.", bounded(known.Error))
	}
}

// rounded is a duration in a sentence, never below 0.
func rounded(d time.Duration) time.Duration {
	const whole = 10 * time.Second
	d = max(d, 0)
	if d < whole {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
