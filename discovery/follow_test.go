package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// heard is what a Follow has told.
type heard struct {
	mu  sync.Mutex // guards all
	all []string
}

func (h *heard) say(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, s)
}

func (h *heard) services(all map[string][]string, err error) {
	if err != nil {
		h.say("trouble")
		return
	}
	var names []string
	for name, tags := range all {
		names = append(names, name+fmt.Sprint(tags))
	}
	slices.Sort(names)
	h.say(strings.Join(names, " "))
}

func (h *heard) key(value []byte, index uint64, err error) {
	if err != nil {
		h.say("trouble")
		return
	}
	h.say(fmt.Sprintf("%s %v", value, index > 0))
}

func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	return all
}

// until waits until what it heard ends with that.
func (h *heard) until(t *testing.T, want string) {
	t.Helper()
	var last string
	for end := time.Now().Add(25 * time.Second); last != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never told %q, but %q at last", want, last)
		}
		if got := h.take(); len(got) > 0 {
			last = got[len(got)-1]
		}
	}
}

// following runs do, a Follow, for as long as the test.
func following(t *testing.T, do func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v; want the context's end", err)
		}
	})
}

func inBubble(t *testing.T, body func(t *testing.T, agent *consultest.Agent, mesh *discovery.Mesh)) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Client: agent.Client()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = mesh.Close() })
		body(t, agent, mesh)
	})
}

// atRealConsul is a mesh with a Consul of its own; both end with the test.
func atRealConsul(t *testing.T) (*consultest.Server, *discovery.Mesh) {
	t.Helper()
	server := consultest.Real(t)
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: server.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mesh.Close() })
	return server, mesh
}

func enter(t *testing.T, c *api.Client, name string, tags ...string) {
	t.Helper()
	if err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: name, Port: 80, Tags: tags}); err != nil {
		t.Fatal(err)
	}
}

func TestServicesAreToldAtOnceAndOnEachChangeOnceASecondAtMost(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, mesh *discovery.Mesh) {
		enter(t, agent.Client(), "user", "b", "a")
		var h heard
		following(t, func(ctx context.Context) error { return mesh.FollowServices(ctx, h.services) })
		time.Sleep(1500 * time.Millisecond)
		if got, want := h.take(), []string{"consul[] user[a b]"}; !slices.Equal(got, want) {
			t.Fatalf("at the start it told %q; want %q", got, want)
		}
		enter(t, agent.Client(), "order")
		synctest.Wait()
		if got, want := h.take(), []string{"consul[] order[] user[a b]"}; !slices.Equal(got, want) {
			t.Errorf("at a change it told %q; want %q", got, want)
		}
		asked := func() int { return len(agent.Requests("/v1/catalog/services")) }
		before := asked()
		for n := range 100 {
			enter(t, agent.Client(), fmt.Sprint("s", n))
			time.Sleep(100 * time.Millisecond)
		}
		if n := asked() - before; n < 8 || n > 11 {
			t.Errorf("%d questions while the catalog changed 10 times a second for 10s; want one a second", n)
		}
		time.Sleep(2 * time.Second)
		before = asked()
		time.Sleep(time.Hour)
		if n := asked() - before; n < 100 || n > 121 {
			t.Errorf("%d questions in an hour at rest; want two a minute", n)
		}
	})
}

func TestKeyIsToldWithItsIndexAndWrittenByWhoHasSeenItOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *consultest.Agent, mesh *discovery.Mesh) {
		var h heard
		var last uint64
		following(t, func(ctx context.Context) error {
			return mesh.FollowKey(ctx, "rollcall/x", func(value []byte, index uint64, err error) { last = index; h.key(value, index, err) })
		})
		time.Sleep(1500 * time.Millisecond)
		write := func(value string, index uint64, want bool) {
			t.Helper()
			if written, err := mesh.WriteKey(t.Context(), "rollcall/x", []byte(value), index); err != nil || written != want {
				t.Errorf("written %v, %v; want %v", written, err, want)
			}
			time.Sleep(1500 * time.Millisecond)
		}
		write("one", 5, false)
		write("one", 0, true)
		write("two", 0, false)
		write("two", last, true)
		if got, want := h.take(), []string{" false", "one true", "two true"}; !slices.Equal(got, want) {
			t.Errorf("it told %q; want %q", got, want)
		}
	})
}

func TestTroubleIsToldAndTheAnswerComesWhenConsulIsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, mesh *discovery.Mesh) {
		enter(t, agent.Client(), "user")
		var h heard
		following(t, func(ctx context.Context) error { return mesh.FollowServices(ctx, h.services) })
		time.Sleep(1500 * time.Millisecond)
		h.take()
		agent.Break("/v1/catalog/services", consultest.Refuse())
		time.Sleep(time.Minute)
		if got := h.take(); len(got) < 10 || slices.ContainsFunc(got, func(s string) bool { return s != "trouble" }) {
			t.Errorf("a minute without Consul told %q; want its trouble only", got)
		}
		agent.Mend()
		time.Sleep(2 * time.Second)
		if got := h.take(); len(got) == 0 || got[len(got)-1] != "consul[] user[]" {
			t.Errorf("then it told %q; want the services", got)
		}
		agent.Break("/v1/catalog/services", consultest.Silent())
		time.Sleep(2 * time.Minute)
		if got := h.take(); len(got) < 2 {
			t.Errorf("two minutes of silence told %q; want that no answer came", got)
		}
	})
}

func TestRightThatLacksIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, _ *discovery.Mesh) {
		agent.Token("reader", "service:read")
		mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Client: agent.ClientWith("reader")}})
		if err != nil {
			t.Fatal(err)
		}
		defer mesh.Close()
		if _, err := mesh.WriteKey(t.Context(), "rollcall/x", nil, 0); !errors.Is(err, discovery.ErrDenied) {
			t.Errorf("got %v; want ErrDenied", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		_ = mesh.FollowKey(ctx, "rollcall/x", func(_ []byte, _ uint64, err error) { cancel(err) })
		if err := context.Cause(ctx); !errors.Is(err, discovery.ErrDenied) {
			t.Errorf("got %v; want ErrDenied", err)
		}
	})
}

func TestOnlyAMeshWithConsulFollowsServicesAndKeys(t *testing.T) {
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: &catalog.Fixed{}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	if err := mesh.FollowServices(t.Context(), nil); err == nil {
		t.Error("services of no Consul are followed")
	}
	for _, key := range []string{"", "/x", "a\nb", strings.Repeat("x", 513)} {
		if err := mesh.FollowKey(t.Context(), key, nil); err == nil || !strings.Contains(err.Error(), "want 1 to 512 bytes") {
			t.Errorf("key %q: %v; want what a key may be", key, err)
		}
	}
}

func TestServicesAndKeysAreFollowedAtARealConsul(t *testing.T) {
	t.Parallel()
	server, mesh := atRealConsul(t)
	enter(t, server.Client(), "user", "a")
	var services, key heard
	following(t, func(ctx context.Context) error { return mesh.FollowServices(ctx, services.services) })
	following(t, func(ctx context.Context) error { return mesh.FollowKey(ctx, "rollcall/x", key.key) })
	services.until(t, "consul[] user[a]")
	key.until(t, " false")
	if written, err := mesh.WriteKey(t.Context(), "rollcall/x", []byte("one"), 0); err != nil || !written {
		t.Errorf("written %v, %v", written, err)
	}
	if written, err := mesh.WriteKey(t.Context(), "rollcall/x", []byte("two"), 0); err != nil || written {
		t.Errorf("written %v, %v; want not, since it is there", written, err)
	}
	enter(t, server.Client(), "order")
	services.until(t, "consul[] order[] user[a]")
	key.until(t, "one true")
}

func TestKeyThatIsDeletedOrSetAnewAtAnOldIndexIsTold(t *testing.T) {
	t.Parallel()
	server, mesh := atRealConsul(t)
	c := server.Client()
	put := func(key, value string) {
		t.Helper()
		if _, err := c.KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 200 { // which a Consul without data takes a while to reach
		put("rollcall/a", fmt.Sprint(n))
	}
	put("rollcall/b", "b")
	var a, b heard
	following(t, func(ctx context.Context) error { return mesh.FollowKey(ctx, "rollcall/a", a.key) })
	following(t, func(ctx context.Context) error { return mesh.FollowKey(ctx, "rollcall/b", b.key) })
	a.until(t, "199 true")
	b.until(t, "b true")

	if _, err := c.KV().Delete("rollcall/a", nil); err != nil {
		t.Fatal(err)
	}
	a.until(t, " false")
	put("rollcall/a", "again")
	a.until(t, "again true")
	if got := b.take(); slices.ContainsFunc(got, func(s string) bool { return s != "b true" }) {
		t.Errorf("of the other key it told %q; want no change", got)
	}

	server.Wipe()
	c = server.Client()
	a.until(t, " false")
	b.until(t, " false")
	put("rollcall/a", "anew")
	put("rollcall/b", "anew")
	a.until(t, "anew true")
	b.until(t, "anew true")
}

func TestEachQuestionIsToldWhateverItIsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		var h heard
		mesh, err := discovery.Open(t.Context(), discovery.Config{
			Consul: discovery.Consul{Client: agent.Client()}, Trace: &discovery.Trace{Watch: &watch.Trace{Asked: h.say}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = mesh.Close() })
		following(t, func(ctx context.Context) error { return mesh.FollowServices(ctx, func(map[string][]string, error) {}) })
		following(t, func(ctx context.Context) error { return mesh.FollowKey(ctx, "a", func([]byte, uint64, error) {}) })
		if _, err := mesh.WriteKey(t.Context(), "a", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := h.take()
		slices.Sort(got)
		if got, want := slices.Compact(got), []string{"key", "services", "write"}; !slices.Equal(got, want) {
			t.Errorf("told of %v; want %v", got, want)
		}
		view, err := mesh.Filter(`"x" in Service.Tags`)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = view.Latest(t.Context(), "order") // what comes of it does not matter
		if got := h.take(); !slices.Contains(got, "fetch") {
			t.Errorf("told of %v; want the question of the view with a filter", got)
		}
	})
}
