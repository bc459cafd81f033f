package meshview

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/observability/debug"
)

// soon is when the page has shown what is asked of it.
const soon = 2 * time.Second

func TestPictureHasEachInstanceWithItsChecksInConsulsWords(t *testing.T) {
	inBubble(t, func(r *rig) {
		id := r.join("order", 1)
		if err := r.agent.Client().Agent().UpdateTTL(id+":ttl", "the disk is full", api.HealthWarning); err != nil {
			r.Fatal(err)
		}
		s := r.service("order")
		if s.Total != 1 || s.Passing != 0 || !slices.Equal(s.Tags, []string{"http"}) {
			r.Errorf("got %+v; want one instance, which does not pass, and the tag http", s)
		}
		want := Instance{
			Key: "order/order-1@10.0.0.1:80", ID: "order-1", Node: "consul", Addr: "10.0.0.1:80", Protocol: "http", State: "warning",
			Reason: "the disk is full", Version: "v1", Weight: 1, Checks: []Check{
				{"heartbeat", "warning", "the disk is full"}, {"Serf Health Status", "passing", "Agent alive and reachable"},
			},
		}
		if diff := cmp.Diff(want, s.Instances[0], cmpopts.IgnoreFields(Instance{}, "Trouble")); diff != "" {
			r.Errorf("(-want +got)\n%s", diff)
		}
		if c := r.view.latest().Consul; !c.Reachable || c.Error != "" {
			r.Errorf("got %+v; want Consul reachable", c)
		}
	})
}

func TestScaleUpIsShownWithinTwoSecondsAndIsNewForTen(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		v := r.watch()
		time.Sleep(time.Minute)
		v.take()
		for n := 2; n <= 5; n++ {
			r.join("order", n)
		}
		time.Sleep(soon)
		text := v.take()
		for n := 2; n <= 5; n++ {
			if want := fmt.Sprintf(`"text":"order-%d joined order"`, n); strings.Count(text, want) != 1 {
				r.Errorf("the stream has %q %d times; want it once", want, strings.Count(text, want))
			}
			if i := r.instance(fmt.Sprintf("order-%d", n)); !i.New {
				r.Errorf("%s is not new", i.ID)
			}
		}
		if !strings.Contains(text, `"total":5`) || r.instance("order-1").New {
			r.Errorf("the last picture has no five instances, or the first of them is new: %s", text)
		}
		time.Sleep(11 * time.Second)
		if r.instance("order-5").New {
			r.Error("order-5 is new after eleven seconds")
		}
		r.leave("order-5")
		time.Sleep(soon)
		if text := v.take(); !strings.Contains(text, `"text":"order-5 left order"`) {
			r.Errorf("the stream does not tell that order-5 has left: %s", text)
		}
	})
}

func TestProcessesAreAskedAsSoonAsConsulNamesThem(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.fleet.serve("10.0.0.1:81", says(nil))
		r.view.latest()
		time.Sleep(pictureEvery + 100*time.Millisecond)
		if i := r.instance("order-1"); !i.Answered {
			r.Errorf("got %+v in the second picture; want its answer", i)
		}
	})
}

// known is what a process says of a service.
func known(service string, more map[string]any, instances ...map[string]any) map[string]any {
	s := map[string]any{"service": service, "since": time.Now(), "proven": time.Now(), "ready": len(instances), "instances": instances}
	maps.Copy(s, more)
	return s
}

func called(window, requests, failed, retries, p50, p99 float64) map[string]any {
	return map[string]any{"calls": map[string]any{
		"window_seconds": window, "requests": requests, "failed": failed, "retries": retries, "p50_seconds": p50, "p99_seconds": p99,
	}}
}

func TestCallsOfAllInstancesBecomeOneEdge(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("gateway", 1)
		r.join("gateway", 2)
		r.join("order", 3)
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{
			known("order", called(10, 100, 5, 10, 0.010, 0.100)), known("gateway", called(10, 5, 0, 0, 1, 1)), known("stock", nil),
		}}))
		r.fleet.serve("10.0.0.2:81", says(map[string]any{"services": []any{known("order", called(10, 300, 0, 0, 0.030, 0.050))}}))
		r.fleet.serve("10.0.0.3:81", says(nil))
		r.view.latest()
		time.Sleep(soon)
		want := []Edge{
			{From: "gateway", To: "order", Rate: 40, Failed: 0.5, Retried: 1, P50: 25 * time.Millisecond, P99: 100 * time.Millisecond},
			{From: "gateway", To: "stock"},
		}
		if diff := cmp.Diff(want, r.view.latest().Edges); diff != "" {
			r.Errorf("(-want +got)\n%s", diff)
		}
		if s := r.service("stock"); s.Total != 0 || s.Instances == nil {
			r.Errorf("got %+v; want a service that is called, and of which the catalog has none", s)
		}
	})
}

func TestEjectionIsShownWithWhoAndWhyAndUntilWhen(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.join("user", 2)
		entry := map[string]any{
			"id": "user-2", "addr": "10.0.0.2:80", "state": "passing", "weight": 1, "health": "healthy",
			"in_flight": 3, "connections": 2, "latency_seconds": 0.02,
		}
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{known("user", nil, entry)}}))
		r.fleet.serve("10.0.0.2:81", says(nil))
		r.view.latest()
		time.Sleep(soon)
		i := r.instance("user-2")
		if want := (Seen{By: "order-1", Latency: 20 * time.Millisecond, InFlight: 3, Connections: 2, Health: "healthy"}); len(i.Seen) != 1 || i.SeenBy != 1 || !cmp.Equal(withoutAge(i.Seen[0]), want) {
			r.Errorf("it is seen as %+v; want %+v", i.Seen, want)
		}
		out := map[string]any{"since": time.Now(), "until": time.Now().Add(time.Minute), "reason": "errors"}
		ejected := map[string]any{"ejected": out, "health": "ejected"}
		for k, v := range entry {
			if k != "health" {
				ejected[k] = v
			}
		}
		began := time.Now()
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{known("user", nil, ejected)}}))
		time.Sleep(soon)
		if i := r.instance("user-2"); len(i.Out) != 1 || i.OutBy != 1 || !cmp.Equal(i.Out[0], Out{"order-1", "errors", began, began.Add(time.Minute)}) {
			r.Errorf("it is out as %+v; want by order-1 for errors, from %s for a minute", i.Out, began)
		}
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{known("user", nil, entry)}}))
		time.Sleep(soon)
		want := []string{"out: user-2 is out of use at order-1 until " + hour(began.Add(time.Minute)) + ": errors", "back: user-2 is back in use"}
		if got := r.happened(); !slices.Equal(got, want) {
			r.Errorf("the timeline has %q; want %q", got, want)
		}
	})
}

func withoutAge(s Seen) Seen {
	s.SnapshotAge = 0
	return s
}

func TestMissingInstanceStaysInThePictureWhileItIsUsed(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.join("user", 2)
		r.fleet.serve("10.0.0.1:81", says(nil))
		r.view.latest()
		time.Sleep(soon)
		r.leave("user-2")
		gone := map[string]any{"id": "user-2", "addr": "10.0.0.2:80", "state": "passing", "weight": 1, "missing_until": time.Now().Add(30 * time.Second)}
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{known("user", nil, gone)}}))
		time.Sleep(soon)
		if s := r.service("user"); s.Total != 1 || s.Passing != 0 || !s.Instances[0].Missing {
			r.Errorf("got %+v; want user-2 as missing", s)
		}
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{known("user", nil)}}))
		time.Sleep(soon)
		if s := r.service("user"); s.Total != 0 {
			r.Errorf("got %+v; want no instance", s)
		}
		got := strings.Join(r.happened(), "\n")
		if !strings.Contains(got, "missing: user-2 of user") || !strings.HasSuffix(got, "left: user-2 left user") {
			r.Errorf("the timeline has\n%s\nwant that user-2 was missing, and left", got)
		}
	})
}

func TestPanicIsShownWithWhoIsInIt(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.join("user", 2)
		calm, panics := known("user", nil), known("user", map[string]any{"panic": true})
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{calm}}))
		r.view.latest()
		time.Sleep(soon)
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{panics}}))
		time.Sleep(soon)
		if s := r.service("user"); !slices.Equal(s.PanicBy, []string{"order-1"}) {
			r.Errorf("panic by %q; want order-1", s.PanicBy)
		}
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{calm}}))
		time.Sleep(soon)
		want := []string{"panic: none of user is ready: order-1 sends to critical instances", "panic-over: user has instances again that are ready"}
		if got := r.happened(); !slices.Equal(got, want) {
			r.Errorf("the timeline has %q; want %q", got, want)
		}
	})
}

func TestWithoutConsulTheLastPictureStaysAndSaysSinceWhen(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.fleet.serve("10.0.0.1:81", says(nil))
		v := r.watch()
		time.Sleep(time.Minute)
		v.take()
		r.agent.Break("/v1/", consultest.Refuse())
		lost := time.Now()
		time.Sleep(4 * time.Second)
		p := r.view.latest()
		if p.Consul.Reachable || p.Consul.Error == "" || p.Consul.Since.Sub(lost).Abs() > time.Second {
			r.Errorf("got %+v; want Consul lost since %s", p.Consul, lost)
		}
		if i := r.instance("order-1"); !i.Answered || i.Age > soon {
			r.Errorf("got %+v; want order-1 to be asked still", i)
		}
		if text := v.take(); !strings.Contains(text, `"kind":"consul-lost"`) || !strings.Contains(text, `"reachable":false`) {
			r.Errorf("the stream says nothing of it: %s", text)
		}
		r.agent.Mend()
		time.Sleep(4 * time.Second)
		if c := r.view.latest().Consul; !c.Reachable || c.Error != "" || c.Since.Sub(lost) < 3*time.Second {
			r.Errorf("got %+v; want Consul found", c)
		}
		if text := v.take(); strings.Count(text, `"kind":"consul-found"`) != 1 || strings.Contains(text, `"kind":"left"`) || strings.Contains(text, `"kind":"joined"`) {
			r.Errorf("want the stream to tell once that Consul is found, and nothing else: %s", text)
		}
	})
}

func TestPageWorksFromAStartWithoutConsul(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.agent.Break("/v1/", consultest.Refuse())
		began := time.Now()
		p := r.view.latest()
		if p.Consul.Reachable || p.Consul.Error == "" || p.Services == nil || p.Edges == nil || time.Since(began) > soon {
			r.Errorf("got %+v after %s; want an empty picture that says why, soon", p, time.Since(began))
		}
		r.agent.Mend()
		time.Sleep(3 * time.Second)
		if s := r.service("order"); s.Total != 1 {
			r.Errorf("got %+v; want one instance", s)
		}
		if got := r.happened(); len(got) != 0 {
			r.Errorf("the timeline has %q; want nothing, since nothing has joined", got)
		}
	})
}

func TestInstanceThatDoesNotAnswerIsSaidToBeSoAndHoldsUpNobody(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.join("order", 2)
		r.join("order", 3)
		r.join("order", 4, debug.MetaAdmin, "http")
		r.fleet.serve("10.0.0.1:81", says(nil))
		r.fleet.serve("10.0.0.2:81", hangs)
		v := r.watch()
		time.Sleep(time.Minute)
		v.take()
		for id, want := range map[string]string{
			"order-1": "", "order-2": "no answer within 1s", "order-3": "connection refused",
			"order-4": `its Meta rollcall_admin is "http"; want a port from 1 to 65535`,
		} {
			if i := r.instance(id); i.Trouble != want || i.Answered != (want == "") {
				r.Errorf("%s: answered %v, trouble %q; want %q", id, i.Answered, i.Trouble, want)
			}
		}
		before := map[string]int{"10.0.0.1:81": 0, "10.0.0.2:81": 0, "10.0.0.3:81": 0}
		for addr := range before {
			before[addr] = r.fleet.count(addr)
		}
		time.Sleep(time.Minute)
		if n := r.fleet.count("10.0.0.1:81") - before["10.0.0.1:81"]; n < 50 || n > 61 {
			r.Errorf("order-1 was asked %d times in a minute; want once a second", n)
		}
		for _, addr := range []string{"10.0.0.2:81", "10.0.0.3:81"} {
			if n := r.fleet.count(addr) - before[addr]; n < 3 || n > 5 {
				r.Errorf("%s, which does not answer, was asked %d times in a minute; want every 15 seconds", addr, n)
			}
		}
		r.fleet.serve("10.0.0.2:81", says(nil))
		time.Sleep(17 * time.Second)
		if i := r.instance("order-2"); !i.Answered || i.Trouble != "" {
			r.Errorf("got %+v; want order-2 to answer again", i)
		}
	})
}

func TestTwoHundredInstancesAreAskedSixteenAtATime(t *testing.T) {
	inBubble(t, func(r *rig) {
		slow := func(w http.ResponseWriter, q *http.Request) {
			time.Sleep(50 * time.Millisecond)
			says(nil)(w, q)
		}
		for n := 1; n <= 200; n++ {
			r.join("order", n)
			r.fleet.serve(fmt.Sprintf("10.0.0.%d:81", n), slow)
		}
		r.watch()
		time.Sleep(5 * time.Second)
		answered := 0
		for _, i := range r.service("order").Instances {
			if i.Answered {
				answered++
			}
		}
		if answered != 200 || r.fleet.peak() != together {
			r.Errorf("%d answered, %d were asked at once; want 200, and %d", answered, r.fleet.peak(), together)
		}
		text := r.get("/mesh/picture").Body
		if most := 200 << 10; text.Len() > most {
			r.Errorf("the picture has %d bytes; want %d at most", text.Len(), most)
		}
		for n := 1; n <= 150; n++ {
			r.fleet.serve(fmt.Sprintf("10.0.0.%d:81", n), hangs)
		}
		time.Sleep(time.Minute)
		before := r.fleet.count("10.0.0.200:81")
		time.Sleep(20 * time.Second)
		if n := r.fleet.count("10.0.0.200:81") - before; n < 7 {
			r.Errorf("order-200 was asked %d times in 20 s while 150 others hang; want it to be asked on", n)
		}
		if i := r.instance("order-200"); !i.Answered || i.Age > 4*time.Second {
			r.Errorf("its answer is %s old; want it fresh", i.Age)
		}
	})
}

func TestScriptTagsInNamesAndTextsStayData(t *testing.T) {
	const script = `<script>alert(1)</script>`
	inBubble(t, func(r *rig) {
		r.join("order", 1, "version", script)
		if err := r.agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: script, Name: "order", Address: "10.0.0.2", Port: 80, Tags: []string{script},
			Check: &api.AgentServiceCheck{CheckID: "x", Name: script, TTL: "1h", Status: api.HealthPassing},
		}); err != nil {
			r.Fatal(err)
		}
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{
			known(script, nil, map[string]any{"id": script + "2", "addr": script, "state": script, "missing_until": time.Now()}),
		}}))
		v := r.watch()
		time.Sleep(5 * time.Second)
		if err := r.agent.Client().Agent().UpdateTTL("x", script, api.HealthCritical); err != nil {
			r.Fatal(err)
		}
		time.Sleep(soon)
		picture := r.get("/mesh/picture").Body.String()
		for what, text := range map[string]string{"picture": picture, "events": r.get("/mesh/events").Body.String(), "stream": v.take()} {
			if strings.Contains(text, "<") || !strings.Contains(text, `\u003cscript`) {
				r.Errorf("the %s has a < in it, or not the name: %s", what, text)
			}
		}
		if i := r.instance(script); i.State != "critical" || i.Checks[0].Output != script {
			r.Errorf("got %+v; want the text as it is", i)
		}
		for _, path := range []string{"/mesh/picture", "/mesh/events"} {
			if h := r.get(path).Header(); h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" {
				r.Errorf("%s has the header %v", path, h)
			}
		}
	})
}

func TestClockThatIsOffIsToldAndTimesAreByOurs(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour, 300 * time.Millisecond} {
		t.Run(off.String(), func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.join("order", 1)
				r.join("user", 2)
				since := time.Now()
				r.fleet.serve("10.0.0.1:81", func(w http.ResponseWriter, q *http.Request) {
					time.Sleep(20 * time.Millisecond)
					theirs := time.Now().Add(off)
					says(map[string]any{"at": theirs, "services": []any{known("user", map[string]any{"proven": theirs.Add(-3 * time.Second)}, map[string]any{
						"id": "user-2", "addr": "10.0.0.2:80", "state": "passing",
						"ejected": map[string]any{"since": since.Add(off), "until": since.Add(off + time.Minute), "reason": "errors"},
					})}})(w, q)
				})
				r.view.latest()
				time.Sleep(soon)
				want := off
				if off.Abs() < time.Second {
					want = 0
				}
				if i := r.instance("order-1"); (i.ClockOff-want).Abs() > 50*time.Millisecond || i.Age <= 0 || i.Age > soon {
					r.Errorf("its clock is %s off, its status %s old; want %s", i.ClockOff, i.Age, want)
				}
				i := r.instance("user-2")
				if since := i.Out[0].Since.Sub(since); since.Abs() > off.Abs()%time.Second+50*time.Millisecond {
					r.Errorf("it is out since %s after it was", since)
				}
				if age := i.Seen[0].SnapshotAge; age < 3*time.Second || age > 5*time.Second {
					r.Errorf("the snapshot is %s old; want about 3s", age)
				}
			})
		})
	}
}

func TestStatusThatCantBeReadIsSaidInPlainWords(t *testing.T) {
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		want  string
	}{
		"a newer version": {says(map[string]any{"version": 2}), "its status has version 2; this page reads up to 1: bring the process that serves the page up to date"},
		"no JSON":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, "its status can't be read: invalid character 'h' looking for beginning of value"},
		"too much":        {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(strings.Repeat(" ", 2<<20))) }, "its status is larger than 1048576 bytes"},
		"another page":    {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusNotFound) }, "it answers 404 Not Found at /debug/discovery"},
		"a redirect": {func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "http://elsewhere/", http.StatusFound)
		}, "it answers 302 Found at /debug/discovery"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.join("order", 1)
				r.fleet.serve("10.0.0.1:81", c.serve)
				r.view.latest()
				time.Sleep(soon)
				if i := r.instance("order-1"); i.Answered || i.Trouble != c.want {
					r.Errorf("got %q; want %q", i.Trouble, c.want)
				}
				if n := r.fleet.count("elsewhere"); n != 0 {
					r.Errorf("the redirect was followed %d times", n)
				}
			})
		})
	}
}

func TestOlderProcessWithoutTheNewFieldsIsShown(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.join("user", 2)
		r.fleet.serve("10.0.0.1:81", func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"at": time.Now(), "services": []any{map[string]any{
				"service": "user", "instances": []any{map[string]any{"id": "user-2", "addr": "10.0.0.2:80", "state": "passing", "in_flight": 1}},
			}}})
		})
		r.view.latest()
		time.Sleep(soon)
		if i := r.instance("user-2"); len(i.Seen) != 1 || i.Seen[0].InFlight != 1 || i.Seen[0].SnapshotAge != 0 {
			r.Errorf("it is seen as %+v; want one request in flight", i.Seen)
		}
		if diff := cmp.Diff([]Edge{{From: "order", To: "user"}}, r.view.latest().Edges); diff != "" {
			r.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestEntriesOfOneProcessHaveItAskedOnceAndByTheOneForHTTPItIsNamed(t *testing.T) {
	inBubble(t, func(r *rig) {
		for id, protocol := range map[string]string{"order-1": "grpc", "order-2": "http"} {
			if err := r.agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
				ID: id, Name: "order", Address: "10.0.0.1", Port: 80 + len(protocol), Tags: []string{protocol},
				Meta: map[string]string{debug.MetaAdmin: "81"},
			}); err != nil {
				r.Fatal(err)
			}
		}
		r.join("user", 3)
		r.fleet.serve("10.0.0.1:81", says(map[string]any{"services": []any{
			known("user", called(10, 50, 0, 0, 0, 0), map[string]any{"id": "user-3", "addr": "10.0.0.3:80", "state": "passing"}),
		}}))
		r.watch()
		time.Sleep(10 * time.Second)
		if n := r.fleet.count("10.0.0.1:81"); n > 13 {
			r.Errorf("it was asked %d times in ten seconds; want once a second", n)
		}
		if e := r.view.latest().Edges; len(e) != 1 || e[0].Rate != 5 {
			r.Errorf("got %+v; want five requests a second", e)
		}
		if i := r.instance("order-1"); !i.Answered || i.Protocol != "grpc" {
			r.Errorf("got %+v; want the entry for gRPC to have its process's answer", i)
		}
		if i := r.instance("user-3"); len(i.Seen) != 1 || i.Seen[0].By != "order-2" {
			r.Errorf("it is seen as %+v; want by order-2, the entry for HTTP", i.Seen)
		}
	})
}

func TestNothingRunsBeforeTheFirstLookAndSomeTimeAfterTheLast(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.fleet.serve("10.0.0.1:81", says(nil))
		idle := func(what string) {
			r.Helper()
			asked, before := len(r.agent.Requests("")), r.fleet.count("10.0.0.1:81")
			time.Sleep(time.Hour)
			if n, m := len(r.agent.Requests(""))-asked, r.fleet.count("10.0.0.1:81")-before; n != 0 || m != 0 {
				r.Errorf("%s: Consul was asked %d times in an hour, and the process %d times; want never", what, n, m)
			}
		}
		idle("before")
		v := r.watch()
		time.Sleep(time.Minute)
		v.leave()
		time.Sleep(restEvery)
		before := r.fleet.count("10.0.0.1:81")
		time.Sleep(5 * time.Minute)
		if n := r.fleet.count("10.0.0.1:81") - before; n < 29 || n > 31 {
			r.Errorf("the process was asked %d times in five minutes without a viewer; want every ten seconds", n)
		}
		r.join("order", 2)
		time.Sleep(6 * time.Minute)
		idle("after")
		if got := r.happened(); !slices.Equal(got, []string{"joined: order-2 joined order"}) {
			r.Errorf("the timeline has %q; want what happened while nobody looked", got)
		}
		if s := r.service("order"); s.Total != 2 || len(r.happened()) != 1 {
			r.Errorf("got %+v and %q after another look; want both, and no news", s, r.happened())
		}
	})
}

func TestRoutesThatComeAndGoAreInTheTimeline(t *testing.T) {
	var lines atomic.Pointer[[]string]
	set := func(all ...string) { lines.Store(&all) }
	set("/users to user")
	inBubble(t, func(r *rig) {
		r.watch()
		time.Sleep(5 * time.Second)
		set("/greet to greeter", "/users to user")
		r.join("greeter", 1)
		time.Sleep(soon)
		set("/users to user")
		r.join("greeter", 2)
		time.Sleep(soon)
		got := slices.DeleteFunc(r.happened(), func(s string) bool { return !strings.HasPrefix(s, "routes") })
		want := []string{"routes: a route came: /greet to greeter", "routes: a route went: /greet to greeter"}
		if !slices.Equal(got, want) {
			r.Errorf("the timeline has %q; want %q", got, want)
		}
	}, func(c *Config) { c.Routes = func() []string { return *lines.Load() } })
}

func BenchmarkPictureOfTwoHundredInstancesThatAllKnowEachOther(b *testing.B) {
	g, entries := crowd(b, 200)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		d := newDrawing(now, g)
		d.service("order", entries)
		d.tell()
		if s := d.finish(); len(s[0].Instances) != 200 || s[0].Instances[0].SeenBy != 200 {
			b.Fatal("not all are there")
		}
	}
}
