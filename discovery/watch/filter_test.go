package watch_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

func TestWhatConsulsFilterKeepsOutHasLeftAndWhatIsGoneIsMissing(t *testing.T) {
	test := func(t *testing.T, client *api.Client, soon time.Duration) {
		l := newLab(t, client, client, watch.Config{Filter: `Service.Meta["version"] == "2"`, AuditEvery: time.Second})
		version := func(v string) func(*api.AgentServiceRegistration) {
			return func(r *api.AgentServiceRegistration) { r.Meta = map[string]string{"version": v} }
		}
		for _, id := range []string{"1", "2", "3"} {
			l.register(t, id, version("2"))
		}
		l.register(t, "4", version("1"))
		l.becomes(t, soon, "1:passing 2:passing 3:passing")
		settled(t, l)
		l.register(t, "1", version("1"))
		l.becomes(t, soon, "2:passing 3:passing")
		if n := l.count("missing 1"); n != 0 {
			t.Error("what the filter keeps out was missing")
		}
		l.deregister(t, "2")
		l.becomes(t, soon, "2:passing? 3:passing")
		l.register(t, "3", version("1"))
		l.becomes(t, soon, "2:passing?")
		l.register(t, "2", version("2"))
		l.becomes(t, soon, "2:passing")
	}
	t.Run("fake", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, consultest.New(t).Client(), 15*time.Second) })
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		test(t, consultest.Real(t).Client(), 30*time.Second)
	})
}

// settled waits until what vanishes counts as missing: see grace.
func settled(t *testing.T, l *lab) {
	t.Helper()
	timer := time.NewTimer(2500 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	if _, err := l.Latest(t.Context(), "order"); err != nil {
		t.Fatal(err)
	}
}

func TestFilterThatConsulCannotReadIsTheTroubleOfTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := watch.New(watch.Config{Client: consultest.New(t).Client(), Filter: `Nonsense == "2"`})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Latest(ctx, "order"); err == nil || !strings.Contains(err.Error(), `Selector "Nonsense" is not valid`) {
			t.Errorf("got %v; want Consul's words", err)
		}
	})
}

func TestFilterBesideAFolderOfSetsIsAWrongSetting(t *testing.T) {
	_, err := watch.New(watch.Config{Client: new(api.Client), Filter: "x", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "beside a Filter") {
		t.Errorf("got %v; want Dir named", err)
	}
}
