package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// enter registers an instance that passes, at 10.0.0.n:8080.
func enter(t *testing.T, client *api.Client, service, id, host string, tags ...string) {
	t.Helper()
	err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: service, ID: id, Address: host, Port: 8080, Tags: tags,
		Check: &api.AgentServiceCheck{CheckID: id, TTL: "24h", Status: api.HealthPassing},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// watching runs the command in a bubble, for as long as do; it returns the command's error.
func watching(t *testing.T, c *watchCmd, agent *consultest.Agent, do func(seen func() string)) error {
	t.Helper()
	var out screen
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, sessionOf(agent.Client(), &out)) }()
	do(func() string {
		time.Sleep(3 * time.Second)
		synctest.Wait()
		return regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d\d\d  `).ReplaceAllString(out.take(), "")
	})
	cancel()
	return <-done
}

func see(t *testing.T, when, got, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", when, diff)
	}
}

func TestWatchTellsWhatChangesOneLineAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		client := agent.Client()
		enter(t, client, "order", "order-1", "10.0.0.1")
		enter(t, client, "user", "user-1", "10.0.0.9")
		err := watching(t, &watchCmd{Services: []string{"order"}}, agent, func(seen func() string) {
			see(t, "at the start", seen(), `
following  order  1 of 1 ready (passing)
`)
			enter(t, client, "order", "order-2\x1b[2J", "10.0.0.2")
			see(t, "one more", seen(), `
joined     order  order-2\x1b[2J  10.0.0.2:8080  passing
`)
			if err := agent.SetCheck("order-1", api.HealthCritical, "no answer"); err != nil {
				t.Fatal(err)
			}
			see(t, "a check fails", seen(), `
state      order  order-1  10.0.0.1:8080  passing -> critical  no answer
`)
			if err := client.Agent().ServiceDeregister("order-1"); err != nil {
				t.Fatal(err)
			}
			see(t, "one left in order", seen(), `
left       order  order-1  10.0.0.1:8080
`)
			enter(t, client, "order", "order-2\x1b[2J", "10.0.0.2", "canary")
			see(t, "its tags changed", seen(), `
tags       order  order-2\x1b[2J  10.0.0.2:8080  - -> canary
`)
		})
		if err != nil {
			t.Errorf("interrupted it ends with %v; want nil", err)
		}
	})
}

func TestWatchOfAllTellsOfServicesThatComeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		client := agent.Client()
		enter(t, client, "order", "order-1", "10.0.0.1")
		err := watching(t, &watchCmd{}, agent, func(seen func() string) {
			if got := seen(); !strings.Contains(got, "following  order  1 of 1 ready (passing)\n") {
				t.Errorf("at the start it told %q; want order among it", got)
			}
			enter(t, client, "user", "user-1", "10.0.0.9")
			see(t, "a service came", seen(), `
joined     user  user-1  10.0.0.9:8080  passing
`)
		})
		if err != nil {
			t.Errorf("interrupted it ends with %v; want nil", err)
		}
	})
}

func TestWatchTellsThatConsulIsLostAndFoundOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		client := agent.Client()
		enter(t, client, "order", "order-1", "10.0.0.1")
		enter(t, client, "user", "user-1", "10.0.0.9")
		_ = watching(t, &watchCmd{Services: []string{"order", "user"}}, agent, func(seen func() string) {
			seen()
			agent.Break("/v1/", consultest.Fail(500, "No cluster leader"))
			time.Sleep(time.Minute)
			lost := seen()
			if !strings.HasPrefix(lost, "lost ") || strings.Count(lost, "\n") != 1 || !strings.Contains(lost, "No cluster leader") {
				t.Errorf("after a minute without a leader it told %q; want one line", lost)
			}
			agent.Mend()
			time.Sleep(time.Minute)
			found := seen()
			if !strings.HasPrefix(found, "found      Consul, after ") || strings.Count(found, "\n") != 1 {
				t.Errorf("a minute after it told %q; want one line", found)
			}
		})
	})
}

func TestWatchInJSONHasAnObjectOnEachLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		client := agent.Client()
		enter(t, client, "order", "order-1", "10.0.0.1")
		_ = watching(t, &watchCmd{Services: []string{"order"}, Output: "json"}, agent, func(seen func() string) {
			seen()
			if err := agent.SetCheck("order-1", api.HealthWarning, "slow"); err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitAfter(seen(), "\n")
			if len(lines) != 2 || lines[1] != "" {
				t.Fatalf("got %q; want one line", lines)
			}
			var got map[string]any
			if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
				t.Fatal(err)
			}
			delete(got, "at")
			want := map[string]any{
				"event": "state", "service": "order", "from": "passing", "to": "warning", "detail": "slow",
				"instance": map[string]any{
					"id": "order-1", "node": consultest.NodeName, "addr": "10.0.0.1:8080", "state": "warning", "reason": "slow",
					"weight": 1.0, "protocol": "http",
				},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	})
}

func TestWatchEndsWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		began := time.Now()
		if err := (&watchCmd{For: 10 * time.Second}).Run(t.Context(), sessionOf(agent.Client(), new(screen))); err != nil {
			t.Errorf("got %v; want nil", err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v; want 10s", took)
		}
	})
}

func TestWatchWithoutOneAnswerIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		agent.Break("/v1/", consultest.Fail(500, "No cluster leader"))
		for _, services := range [][]string{nil, {"order"}} {
			err := (&watchCmd{Services: services, For: 10 * time.Second}).Run(t.Context(), sessionOf(agent.Client(), new(screen)))
			exit, ok := errors.AsType[*exitError](err)
			if !ok || exit.code != exitNoConsul || !strings.Contains(err.Error(), "raft list-peers") {
				t.Errorf("%v: got %v; want exit code %d and what to do", services, err, exitNoConsul)
			}
		}
	})
}

func TestEveryChangeOfAnInstanceHasItsEvent(t *testing.T) {
	until := time.Date(2026, 1, 2, 15, 4, 5, 0, time.Local)
	plain := catalog.Instance{ID: "a", Host: "10.0.0.1", Port: 80, State: catalog.StatePassing, Weight: 1}
	with := func(change func(*catalog.Instance)) catalog.Instance {
		i := plain
		change(&i)
		return i
	}
	missing := with(func(i *catalog.Instance) { i.MissingUntil = until })
	for _, c := range []struct {
		name    string
		was, is catalog.Instance
		want    string
	}{
		{"nothing", plain, plain, ""},
		{"missing", plain, missing, "missing: order  a  10.0.0.1:80  vanished from Consul; in use until 15:04:05 unless it fails"},
		{"back", missing, plain, "back: order  a  10.0.0.1:80  passing"},
		{"weight", plain, with(func(i *catalog.Instance) { i.Weight = 5 }), "weight: order  a  10.0.0.1:80  1 -> 5"},
		{"Meta", plain, with(func(i *catalog.Instance) { i.Meta = map[string]string{"version": "2"} }), "meta: order  a  10.0.0.1:80  - -> 2  Meta version"},
		{
			"state and weight", plain, with(func(i *catalog.Instance) { i.State, i.Weight, i.Reason = catalog.StateWarning, 2, "slow" }),
			"state: order  a  10.0.0.1:80  passing -> warning  slow, weight: order  a  10.0.0.1:80  1 -> 2",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			shown := instanceOf(c.is)
			var got []string
			for _, e := range changed(event{Service: "order", Instance: &shown}, c.was, c.is) {
				got = append(got, e.Event+": "+e.text())
			}
			if got := strings.Join(got, ", "); got != c.want {
				t.Errorf("got %q; want %q", got, c.want)
			}
		})
	}
}

func TestInterruptEndsWatchInOrder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows sends no such signal to one process")
	}
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	enter(t, agent.Client(), "order", "order-1", "10.0.0.1")
	cmd := command(t, "watch", "order")
	cmd.Env = append(cmd.Env, "CONSUL_HTTP_ADDR="+address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, "following") {
		t.Errorf("its first line is %q (%v); want that it follows order", line, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted it ended with %v; want exit code 0", err)
	}
}
