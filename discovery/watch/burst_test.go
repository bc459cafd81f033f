package watch_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// asked returns how many questions with an answer of full size Consul had.
func asked(agent *consultest.Agent) int {
	n := 0
	for _, r := range agent.Requests("/v1/health/service/") {
		if !r.Query.Has("filter") && !r.Query.Has("tag") {
			n++
		}
	}
	return n
}

func TestThousandChangesInASecondCostTwentyAnswersAndTheLastIsUsedAtOnce(t *testing.T) {
	bubble(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		l.register(t, "1")
		l.becomes(t, time.Minute, "1:passing")
		time.Sleep(10 * time.Second)
		before := asked(agent)
		for n := range 1000 {
			l.register(t, "1", func(r *api.AgentServiceRegistration) { r.Meta = map[string]string{"n": fmt.Sprint(n)} })
			time.Sleep(time.Millisecond)
		}
		last := time.Now()
		for {
			s, err := l.Latest(t.Context(), "order")
			if err != nil {
				t.Fatal(err)
			}
			meta := ""
			for i := range s.All() {
				meta = i.Meta["n"]
			}
			if meta == "999" {
				break
			}
			<-s.Superseded()
		}
		if late := time.Since(last); late > 100*time.Millisecond {
			t.Errorf("the last change was in use after %s; want 100ms", late)
		}
		if n := asked(agent) - before; n > 20 {
			t.Errorf("%d answers for 1,000 changes; want at most 20", n)
		}
	})
}

func TestNewcomerIsSeenWithin100msWhateverElseChanges(t *testing.T) {
	bubble(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		l.register(t, "1")
		l.becomes(t, time.Minute, "1:passing")
		for n := range 2000 { // 10 s of unrest
			l.register(t, "1", func(r *api.AgentServiceRegistration) { r.Meta = map[string]string{"n": fmt.Sprint(n)} })
			time.Sleep(5 * time.Millisecond)
			if n%200 == 150 {
				id := fmt.Sprint(2 + n/200)
				l.register(t, id)
				for came := time.Now(); ; {
					s, err := l.Latest(t.Context(), "order")
					if err != nil {
						t.Fatal(err)
					}
					if s.Len() == n/200+2 {
						if late := time.Since(came); late > 100*time.Millisecond {
							t.Errorf("newcomer %s was seen after %s; want 100ms", id, late)
						}
						break
					}
					<-s.Superseded()
				}
			}
		}
	})
}

func TestChangesASecondApartAreEachUsedAtOnce(t *testing.T) {
	bubble(t, watch.Config{}, func(t *testing.T, _ *consultest.Agent, l *lab) {
		l.register(t, "1")
		l.becomes(t, time.Minute, "1:passing")
		for n := range 20 {
			time.Sleep(time.Second)
			id := fmt.Sprint(2 + n)
			start := time.Now()
			l.register(t, id)
			for s, _ := l.Latest(t.Context(), "order"); s.Len() != 2+n; s, _ = l.Latest(t.Context(), "order") {
				<-s.Superseded()
			}
			if late := time.Since(start); late != 0 {
				t.Errorf("instance %s was seen after %s; want at once", id, late)
			}
		}
	})
}
