package discovery_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// Two servers, one in each of two datacenters that are joined.
func TestRequestsGoToTheOtherDatacenterWhenThisOneHasNoneLeftAndComeBack(t *testing.T) {
	t.Parallel()
	here := consultest.Real(t)
	far := here.OtherDatacenter("dc2")
	register := func(s *consultest.Server, id string, port int, wan map[string]api.ServiceAddress, status string) {
		t.Helper()
		err := s.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: id, Name: "order", Address: "127.0.0.1", Port: port, TaggedAddresses: wan,
			Check: &api.AgentServiceCheck{CheckID: id, TTL: "10m", Status: status},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	answering := func(id string) int {
		return serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, id) }))
	}
	near := answering("near")
	register(here, "near", near, nil, api.HealthPassing)
	// Its own address leads nowhere from here.
	register(far, "far", 1, map[string]api.ServiceAddress{"wan": {Address: "127.0.0.1", Port: answering("far")}}, api.HealthPassing)

	const stale = 3 * time.Second
	mesh := open(t, discovery.Config{
		Consul:   discovery.Consul{Address: here.Addr()},
		Failover: discovery.Failover{Datacenters: []string{"dc2"}, StaleFor: stale, Settle: 500 * time.Millisecond},
		Log:      slog.New(slog.DiscardHandler),
	})
	// answers asks until only those have answered for a while; no request may fail.
	answers := func(when, want string) {
		t.Helper()
		row := 0
		eventually(t, when+": answers of "+want+" alone", func() bool {
			body, err := get(t, mesh, "http://order/")
			if err != nil {
				t.Fatalf("%s: a request that could have been served failed: %v", when, err)
			}
			row++
			if body != want {
				row = 0
			}
			return row == 20
		})
	}
	reserve := func() string {
		var got []string
		for _, i := range mesh.Status().Services[0].Instances {
			got = append(got, fmt.Sprint(i.ID, i.Reserve))
		}
		return strings.Join(got, " ")
	}
	answers("both are well", "near")
	eventually(t, "the other datacenter in reserve", func() bool { return reserve() == "fartrue nearfalse" })

	beat := func(status string) {
		t.Helper()
		if err := here.Client().Agent().UpdateTTL("near", "", status); err != nil {
			t.Fatal(err)
		}
	}
	beat(api.HealthCritical)
	answers("none is ready here", "far")
	if got := mesh.Status().Services[0].FailedOverTo; got != "dc2" {
		t.Errorf("failed over to %q; want dc2", got)
	}
	beat(api.HealthPassing)
	answers("healed", "near")
	if got := mesh.Status().Services[0].FailedOverTo; got != "" {
		t.Errorf("failed over to %q when this datacenter has healed; want none", got)
	}

	// Cut off: what is known of it is used for as long as StaleFor says, then no more.
	far.Pause()
	beat(api.HealthCritical)
	answers("cut off, and not for long", "far")
	eventually(t, "the other datacenter's set too old", func() bool { return reserve() == "nearfalse" })
	answers("cut off for long: panic", "near")
	far.Resume()
	eventually(t, "the other datacenter again", func() bool { return strings.HasPrefix(reserve(), "far") })
	answers("joined again", "far")
	beat(api.HealthPassing)
	answers("all is well again", "near")
}

// byDatacenter is the way to an agent that knows two datacenters.
type byDatacenter map[string]http.RoundTripper

func (b byDatacenter) RoundTrip(r *http.Request) (*http.Response, error) {
	return b[r.URL.Query().Get("dc")].RoundTrip(r)
}

func TestOtherDatacenterAtRestCostsEightQuestionsAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, far := consultest.New(t), consultest.New(t)
		for id, agent := range map[string]*consultest.Agent{"near": here, "far": far} {
			if err := agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "order", Address: "10.0.0.1", Port: 80}); err != nil {
				t.Fatal(err)
			}
		}
		client, err := api.NewClient(&api.Config{HttpClient: &http.Client{
			Transport: byDatacenter{"": here.HTTPClient().Transport, "dc2": far.HTTPClient().Transport},
		}})
		if err != nil {
			t.Fatal(err)
		}
		mesh := open(t, discovery.Config{
			Consul: discovery.Consul{Client: client}, Follow: []string{"order"}, Log: slog.New(slog.DiscardHandler),
			Failover: discovery.Failover{Datacenters: []string{"dc2"}},
		})
		time.Sleep(time.Minute)
		s, err := mesh.Latest(t.Context(), "order")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s = s.Newest(); s.Len() != 2 {
			t.Fatalf("got %d instances; want one of each datacenter", s.Len())
		}
		before := map[*consultest.Agent]int{here: len(here.Requests("")), far: len(far.Requests(""))}
		const minutes = 30
		time.Sleep(minutes * time.Minute)
		for agent, n := range before {
			if got := len(agent.Requests("")) - n; got > 8*minutes || got < minutes {
				t.Errorf("%d questions in %d minutes; want at most 8 a minute", got, minutes)
			}
		}
	})
}
