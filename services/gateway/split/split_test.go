package split

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t *testing.T, text string) *Splits {
	t.Helper()
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func request(header ...string) *http.Request {
	r := &http.Request{Header: http.Header{}}
	for n := 0; n < len(header); n += 2 {
		r.Header.Add(header[n], header[n+1])
	}
	return r
}

func TestDocumentIsRefusedWithItsLine(t *testing.T) {
	for _, tc := range []struct {
		text string
		line int
		want string
	}{
		{"[]", 1, "want an object"},
		{"{\n \"order\": {}\n}", 2, "want a list of rules"},
		{"{\n \"order\": [\n  {\"to\": \"version=v2\", \"percent\": 5},\n  {\"to\": \"v2\", \"percent\": 5}\n ]\n}", 4, `to is "v2"`},
		{"{\n \"order\": [\n  {\"to\": \"version=v2\"}]}", 3, "neither percent nor header"},
		{"{\n \"order\": [\n  {\n\"to\": \"version=v2\",\n\"percent\": \"5\"}]}", 5, "percent of a rule of order is a string; want a float64"},
		{"{\"order\": [\n{\"to\": \"version=v2\", \"percent\": 101}]}", 2, "percent is 101"},
		{"{\"order\": [\n{\"to\": \"version=v2\", \"percent\": -1}]}", 2, "percent is -1"},
		{"{\"order\": [\n{\"to\": \"version=v2\", \"header\": \"a b\"}]}", 2, `header is "a b"`},
		{"{\"order\": [\n{\"to\": \"version=v2\", \"header\": \"a\", \"sticky\": \"cookie:x\"}]}", 2, "sticky is there without percent"},
		{"{\"order\": [\n{\"to\": \"version=v2\", \"percent\": 1, \"sticky\": \"x\"}]}", 2, `sticky is "x"`},
		{"{\"order\": [\n{\"to\": \"version=v2\", \"percent\": 1, \"weight\": 1}]}", 2, "unknown field"},
		{"{\"order\": [],\n\"order\": []}", 2, "order is there twice"},
		{"{\n\"a b\": []}", 2, "service name"},
		{"{\"order\": [\n{\"to\": ]}", 2, "invalid character"},
		{"{\n", 2, "EOF"},
		{"{}\n{}", 2, "behind the object"},
		{strings.Repeat(" ", maxBytes) + "{}", 1, "want at most 65536"},
		{`{"order": [` + strings.Repeat(`{"to":"a=b","percent":1},`, maxRules) + "\n" + `{"to":"a=b","percent":1}]}`, 2, "at most 20 rules"},
	} {
		_, err := Parse([]byte(tc.text))
		wrong, ok := errors.AsType[*LineError](err)
		if !ok || wrong.Line != tc.line || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.60q: got %v; want line %d and %q", tc.text, err, tc.line, tc.want)
		}
	}
	for _, text := range []string{"", " \n", "{}", `{"order": []}`} {
		if s := parse(t, text); s.Steer("user", request()) != nil {
			t.Errorf("%q has rules", text)
		}
	}
}

func TestFirstRuleThatARequestFallsUnderCounts(t *testing.T) {
	s := parse(t, `{"order": [
		{"to": "version=v3", "header": "X-Version=v3"},
		{"to": "version=v2", "header": "X-Canary"},
		{"to": "version=v4", "header": "X-Half", "percent": 100}
	]}`)
	rules := s.Services["order"]
	for _, tc := range []struct {
		header []string
		want   any
	}{
		{nil, s.rest["order"]},
		{[]string{"X-Version", "v3"}, rules[0].prefer},
		{[]string{"X-Version", "v2"}, s.rest["order"]},
		{[]string{"X-Canary", "anything"}, rules[1].prefer},
		{[]string{"X-Version", "v3", "X-Canary", ""}, rules[0].prefer},
		{[]string{"X-Half", ""}, rules[2].prefer},
	} {
		if got := s.Steer("order", request(tc.header...)); any(got) != tc.want {
			t.Errorf("%v is steered wrong", tc.header)
		}
	}
	if s.Steer("user", request()) != nil || (*Splits)(nil).Steer("order", request()) != nil {
		t.Error("a service without rules is steered")
	}
}

func TestStickyRequestsAlwaysFallTheSameWayAndInTheShare(t *testing.T) {
	const n = 20_000
	s := parse(t, `{"order": [{"to": "version=v2", "percent": 20, "sticky": "cookie:id"}, {"to": "version=v3", "percent": 50, "sticky": "header:X-Id"}]}`)
	hit := map[any]int{}
	for k := range n {
		r := request("Cookie", fmt.Sprint("id=", k), "X-Id", fmt.Sprint(k))
		first := s.Steer("order", r)
		hit[first]++
		for range 3 {
			if s.Steer("order", r) != first {
				t.Fatalf("cookie %d falls either way", k)
			}
		}
	}
	within := func(what string, got int, p float64) {
		t.Helper()
		if want, sigma := n*p, math.Sqrt(n*p*(1-p)); math.Abs(float64(got)-want) > 4*sigma {
			t.Errorf("%s got %d of %d; want %.0f, give or take %.0f", what, got, n, want, 4*sigma)
		}
	}
	within("the first rule", hit[s.Services["order"][0].prefer], 0.2)
	within("the second rule", hit[s.Services["order"][1].prefer], 0.4)
	within("the rest", hit[s.rest["order"]], 0.4)
	{ // without the cookie, chance decides
		hit = map[any]int{}
		for range n {
			hit[s.Steer("order", request("X-Id", "1"))]++
		}
		within("the first rule, without a cookie", hit[s.Services["order"][0].prefer], 0.2)
	}
}

// What the balancer of order picks, for what a rule wants.
func TestShareOfAVersionIsThatOfTheRule(t *testing.T) {
	const n, p = 10_000, 0.1
	s := parse(t, `{"order": [{"to": "version=v2", "percent": 10}]}`)
	var fleet catalog.Fixed
	for _, tc := range []struct {
		versions []string
		least    float64 // of version 2; the most is as far on the other side
	}{
		{[]string{"v1", "v1", "v2"}, n * p},
		{[]string{"v1", "v2", "v2", "v2"}, n * p},
		{[]string{"v1"}, 0},
		{[]string{"v2"}, n},
	} {
		var instances []catalog.Instance
		for k, v := range tc.versions {
			instances = append(instances, catalog.Instance{ID: fmt.Sprint("order-", k), Host: "127.0.0.1", Port: 80 + k, Meta: map[string]string{"version": v}})
		}
		if err := fleet.Set("order", instances...); err != nil {
			t.Fatal(err)
		}
		snapshot, err := fleet.Latest(t.Context(), "order")
		if err != nil {
			t.Fatal(err)
		}
		b := balancer.New("order", balancer.Config{})
		now := time.Now()
		b.Use(snapshot, now)
		second := 0
		for range n {
			lease, err := b.Pick(balancer.Request{Now: now, Prefer: s.Steer("order", request())})
			if err != nil {
				t.Fatal(err)
			}
			if lease.Endpoint().Instance().Meta["version"] == "v2" {
				second++
			}
			lease.Done(outcome.Result{Code: outcome.OK, Began: now, At: now})
		}
		sigma := math.Sqrt(n * p * (1 - p))
		if tc.least == 0 || tc.least == n {
			sigma = 0
		}
		if math.Abs(float64(second)-tc.least) > 4*sigma {
			t.Errorf("of %v: %d of %d to version 2; want %.0f, give or take %.0f", tc.versions, second, n, tc.least, 4*sigma)
		}
	}
}

// scripted is Consul's KV, as a script has it.
type scripted func(told func(value []byte, index uint64, err error))

func (s scripted) FollowKey(_ context.Context, _ string, told func(value []byte, index uint64, err error)) error {
	s(told)
	return nil
}

// counted returns the series of a Follower: requests by peer and rule.
func counted(t *testing.T, f *Follower) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(f)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := ""
			for _, l := range m.GetLabel() {
				name += l.GetValue() + " "
			}
			all[strings.TrimSpace(name)] = m.GetCounter().GetValue()
		}
	}
	return all
}

func TestRequestsAreCountedByTheRuleThatTheyFallUnder(t *testing.T) {
	want := func(f *Follower, when string, want map[string]float64) {
		t.Helper()
		if got := counted(t, f); !maps.Equal(got, want) {
			t.Errorf("%s: got %v; want %v", when, got, want)
		}
	}
	var f *Follower
	f = NewFollower(scripted(func(told func([]byte, uint64, error)) {
		want(f, "before any document", map[string]float64{})
		const two = `{"order": [{"to": "version=v3", "header": "X-V=3"}, {"to": "version=v2", "header": "X-V"}, {"to": "version=v3", "header": "X-W"}]}`
		told([]byte(two), 1, nil)
		for _, header := range [][]string{{"X-V", "3"}, {"X-V", "2"}, {"X-V", "2"}, {"X-W", ""}, nil, nil, nil} {
			f.Splits().Steer("order", request(header...))
		}
		f.Splits().Steer("user", request())
		want(f, "after a few", map[string]float64{"order version=v3": 2, "order version=v2": 2, "order rest": 3})
		told([]byte(two), 1, nil)
		told([]byte(`{"order": `), 2, nil)
		want(f, "told again, and of one that can't be read", map[string]float64{"order version=v3": 2, "order version=v2": 2, "order rest": 3})
		told([]byte(`{"order": [{"to": "version=v2", "percent": 100}], "user": []}`), 3, nil)
		f.Splits().Steer("order", request())
		want(f, "with other rules", map[string]float64{"order version=v2": 3, "order rest": 3, "user rest": 0})
		told(nil, 4, nil)
		want(f, "without rules", map[string]float64{})
	}), "splits", slog.New(slog.DiscardHandler))
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"order": [{"to": "version=v2", "header": "X-V=1", "percent": 5, "sticky": "cookie:id"}]}`))
	f.Add([]byte("{\n\"a\": [\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if wrong, ok := errors.AsType[*LineError](err); err != nil && (!ok || wrong.Line < 1 || wrong.Line > strings.Count(string(text), "\n")+1) {
			t.Errorf("got %v; want an error with a line of the text", err)
		}
		for service := range s.services() {
			if s.Steer(service, request("Cookie", "id=1", "X-V", "1")) == nil {
				t.Errorf("%s has rules and no preference", service)
			}
		}
	})
}

func (s *Splits) services() map[string][]Rule {
	if s == nil {
		return nil
	}
	return s.Services
}
