package kitmesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	kitlog "github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

func at(id, host string, state catalog.State) catalog.Instance {
	return catalog.Instance{ID: id, Host: host, Port: 80, State: state}
}

func set(t *testing.T, source *catalog.Fixed, instances ...catalog.Instance) {
	t.Helper()
	if err := source.Set("user", instances...); err != nil {
		t.Fatal(err)
	}
}

func newInstancer(t *testing.T, mesh *discovery.Mesh) *kitmesh.Instancer {
	t.Helper()
	i, err := kitmesh.NewInstancer(mesh, "user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Stop)
	return i
}

// register registers a channel that holds a few events.
func register(i *kitmesh.Instancer) chan sd.Event {
	ch := make(chan sd.Event, 8)
	i.Register(ch)
	return ch
}

func wantNext(t *testing.T, ch <-chan sd.Event, want ...string) {
	t.Helper()
	select {
	case e := <-ch:
		if e.Err != nil || !slices.Equal(e.Instances, want) {
			t.Errorf("got %v, %v; want %v", e.Instances, e.Err, want)
		}
	default:
		t.Errorf("got nothing; want %v", want)
	}
}

func wantSilence(t *testing.T, ch <-chan sd.Event) {
	t.Helper()
	synctest.Wait()
	select {
	case e := <-ch:
		t.Errorf("got %v, %v; want nothing", e.Instances, e.Err)
	default:
	}
}

func TestInstancerPublishesTheAddressesThatTheMeshSendsTo(t *testing.T) {
	for _, c := range []struct {
		name      string
		instances []catalog.Instance
		want      []string
	}{
		{"none", nil, nil},
		{"sorted", []catalog.Instance{at("a", "10.0.0.2", catalog.StatePassing), at("b", "10.0.0.1", catalog.StatePassing)}, []string{"10.0.0.1:80", "10.0.0.2:80"}},
		{"IPv6", []catalog.Instance{at("a", "fd00::1", catalog.StatePassing)}, []string{"[fd00::1]:80"}},
		{"two IDs at one address", []catalog.Instance{at("a", "10.0.0.1", catalog.StatePassing), at("b", "10.0.0.1", catalog.StatePassing)}, []string{"10.0.0.1:80"}},
		{"the ready ones only", []catalog.Instance{
			at("a", "10.0.0.1", catalog.StatePassing), at("b", "10.0.0.2", catalog.StateWarning), at("c", "10.0.0.3", catalog.StateCritical),
			at("d", "10.0.0.4", catalog.StateDraining), at("e", "10.0.0.5", catalog.StateMaintenance),
		}, []string{"10.0.0.1:80", "10.0.0.2:80"}},
		{"critical ones for want of better", []catalog.Instance{
			at("c", "10.0.0.3", catalog.StateCritical), at("d", "10.0.0.4", catalog.StateDraining), at("e", "10.0.0.5", catalog.StateMaintenance),
		}, []string{"10.0.0.3:80"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var source catalog.Fixed
				set(t, &source, c.instances...)
				wantNext(t, register(newInstancer(t, open(t, discovery.Config{Source: &source}))), c.want...)
			})
		})
	}
}

func TestInstancerOfAMeshThatSelectsPublishesWhatIsSelected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		tagged := func(id, host string, state catalog.State, tags ...string) catalog.Instance {
			i := at(id, host, state)
			i.Tags = tags
			return i
		}
		set(t, &source,
			tagged("a", "10.0.0.1", catalog.StatePassing, "v2", "eu"), tagged("b", "10.0.0.2", catalog.StatePassing, "v2"),
			tagged("c", "10.0.0.3", catalog.StateWarning, "v2", "eu"), tagged("d", "10.0.0.4", catalog.StatePassing, "eu"))
		mesh := open(t, discovery.Config{Source: &source})
		v2, err := mesh.Select(catalog.Selection{Tags: []string{"v2", "eu"}, PassingOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		i := newInstancer(t, v2)
		ch := register(i)
		wantNext(t, ch, "10.0.0.1:80")
		b, err := kitmesh.NewBalancer(i, calls(func(_ context.Context, addr string) (any, error) { return addr, nil }), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if got, err := call(t.Context(), b); got != "10.0.0.1:80" {
				t.Fatalf("got %v, %v; want a", got, err)
			}
		}
		set(t, &source, tagged("a", "10.0.0.1", catalog.StateCritical, "v2", "eu"))
		synctest.Wait()
		wantNext(t, ch)
		b.Close()
	})
}

func TestInstancerOfAServiceThatSpeaksTLSIsAskedForByHTTPS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		secure := at("b", "10.0.0.2", catalog.StatePassing)
		secure.Meta = map[string]string{catalog.MetaTLS: "true"}
		set(t, &source, at("a", "10.0.0.1", catalog.StatePassing), secure)
		mesh := open(t, discovery.Config{Source: &source})
		for service, want := range map[string]string{"user": "10.0.0.1:80", "https://user": "10.0.0.2:80"} {
			i, err := kitmesh.NewInstancer(mesh, service)
			if err != nil {
				t.Fatal(err)
			}
			wantNext(t, register(i), want)
			b, err := kitmesh.NewBalancer(i, calls(func(_ context.Context, addr string) (any, error) { return addr, nil }), nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if got, err := call(t.Context(), b); got != want {
					t.Errorf("%s: got %v, %v; want %s", service, got, err, want)
				}
			}
			b.Close()
			i.Stop()
		}
	})
}

func TestRegisteredChannelGetsThePresentStateAndThenWhatDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		a, b := at("a", "10.0.0.1", catalog.StatePassing), at("b", "10.0.0.2", catalog.StatePassing)
		set(t, &source, a)
		i := newInstancer(t, open(t, discovery.Config{Source: &source}))
		early := register(i)
		wantNext(t, early, "10.0.0.1:80")

		set(t, &source, a, b)
		synctest.Wait()
		wantNext(t, early, "10.0.0.1:80", "10.0.0.2:80")
		late := register(i)
		wantNext(t, late, "10.0.0.1:80", "10.0.0.2:80")

		b.Weight = 3 // no news to go-kit
		set(t, &source, a, b)
		wantSilence(t, early)

		i.Register(early) // once more
		wantNext(t, early, "10.0.0.1:80", "10.0.0.2:80")
		i.Deregister(early)
		set(t, &source)
		wantSilence(t, early)
		wantNext(t, late)
		i.Deregister(early)
	})
}

func TestEachReceiverMayDoWithItsEventAsItLikes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
		i := newInstancer(t, open(t, discovery.Config{Source: &source}))
		e := <-register(i)
		e.Instances[0] = "another"
		wantNext(t, register(i), "10.0.0.1:80")
	})
}

func TestChannelThatNobodyReadsHoldsUpNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
		i := newInstancer(t, open(t, discovery.Config{Source: &source}))
		deaf := make(chan sd.Event)
		begin := time.Now()
		i.Register(deaf)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("Register waited %v for its reader; want 10s", took)
		}
		reader := register(i)
		wantNext(t, reader, "10.0.0.1:80")
		for n := range 3 {
			host := fmt.Sprintf("10.0.1.%d", n)
			set(t, &source, at("a", host, catalog.StatePassing))
			synctest.Wait()
			wantNext(t, reader, host+":80")
		}
		// It has missed what is over, and gets what is.
		wantNext(t, deaf, "10.0.1.2:80")
		wantSilence(t, deaf)
	})
}

func TestChannelMayBeClosedWhenItIsDeregistered(t *testing.T) {
	var source catalog.Fixed
	set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
	i := newInstancer(t, open(t, discovery.Config{Source: &source}))
	stop := make(chan struct{})
	var writer, readers sync.WaitGroup
	writer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				_ = source.Set("user", at("a", fmt.Sprintf("10.0.0.%d", 1+n%200), catalog.StatePassing))
			}
		}
	})
	for range 4 {
		readers.Go(func() {
			for range 200 {
				endpointer := sd.NewEndpointer(i, func(string) (endpoint.Endpoint, io.Closer, error) { return endpoint.Nop, nil, nil }, kitlog.NewNopLogger())
				endpointer.Close() // closes its channel: a send to it would panic
			}
		})
	}
	readers.Wait()
	close(stop)
	writer.Wait()
}

// silent is a source that does not answer until it is told to.
type silent struct {
	catalog.Fixed
	answer chan struct{}
}

func (s *silent) Latest(ctx context.Context, service string) (*catalog.Snapshot, error) {
	select {
	case <-s.answer:
		return s.Fixed.Latest(ctx, service)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func TestRegisterWaitsForTheFirstAnswerAndTellsOfItsLack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &silent{answer: make(chan struct{})}
		set(t, &source.Fixed, at("a", "10.0.0.1", catalog.StatePassing))
		i := newInstancer(t, open(t, discovery.Config{Source: source}))
		begin := time.Now()
		ch := register(i)
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("Register waited %v for an answer; want 5s", took)
		}
		if e := <-ch; e.Err == nil || !strings.Contains(e.Err.Error(), "instances of user") || e.Instances != nil {
			t.Errorf("got %v, %v; want an error that names the service", e.Instances, e.Err)
		}
		time.Sleep(time.Minute)
		wantSilence(t, ch) // it is still the same trouble
		close(source.answer)
		time.Sleep(time.Second)
		synctest.Wait()
		wantNext(t, ch, "10.0.0.1:80")
	})
}

func TestStopEndsWhatTheInstancerBeganAndMayBeCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
		mesh := open(t, discovery.Config{Source: &source})
		i := newInstancer(t, mesh)
		ch := register(i)
		wantNext(t, ch, "10.0.0.1:80")
		for range 2 {
			i.Stop()
		}
		set(t, &source)
		wantSilence(t, ch)
		wantNext(t, register(i), "10.0.0.1:80") // as go-kit's cache: the last there was
		i.Deregister(ch)
		never, err := kitmesh.NewInstancer(open(t, discovery.Config{Source: &silent{}}), "user")
		if err != nil {
			t.Fatal(err)
		}
		never.Stop()
		if e := <-register(never); !errors.Is(e.Err, catalog.ErrClosed) {
			t.Errorf("got %v, %v; want ErrClosed of one that never had an answer", e.Instances, e.Err)
		}
	})
}

func TestInstancerOfAMeshThatWasClosedSaysSoOnceAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		mesh := open(t, discovery.Config{Consul: discovery.Consul{Client: agent.Client(), Address: consultest.Address}})
		i := newInstancer(t, mesh)
		ch := register(i)
		wantNext(t, ch)
		if err := mesh.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		if e := <-ch; !errors.Is(e.Err, catalog.ErrClosed) {
			t.Errorf("got %v, %v; want ErrClosed", e.Instances, e.Err)
		}
		wantSilence(t, ch)
	})
}

func TestEndpointerOverAnInstancerKeepsItsEndpointsWhateverBecomesOfConsul(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		mesh := open(t, discovery.Config{
			Consul: discovery.Consul{Client: agent.Client(), Address: consultest.Address}, Log: slog.New(slog.DiscardHandler),
			Watch: watch.Config{IdleFor: 90 * time.Second},
		})
		registered, err := mesh.Register(registration.Config{Service: "user", ID: "user-1", Host: "10.0.0.1", Port: 80})
		if err != nil {
			t.Fatal(err)
		}
		if err := registered.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		made := 0
		endpointer := sd.NewEndpointer(newInstancer(t, mesh), func(string) (endpoint.Endpoint, io.Closer, error) {
			made++
			return endpoint.Nop, nil, nil
		}, kitlog.NewNopLogger(), sd.InvalidateOnError(time.Second))
		defer endpointer.Close()
		want := func(when string) {
			t.Helper()
			synctest.Wait()
			if es, err := endpointer.Endpoints(); len(es) != 1 || err != nil {
				t.Errorf("%s: got %d endpoints, %v; want 1", when, len(es), err)
			}
		}
		want("at the beginning")
		agent.Break("", consultest.Refuse())
		time.Sleep(time.Minute)
		want("after a minute without Consul")
		agent.Mend()
		agent.Wipe()
		want("with a catalog that was wiped")
		time.Sleep(5 * time.Minute) // the watch outlives Watch.IdleFor, for it is in use
		want("five minutes later")
		if made != 1 {
			t.Errorf("an endpoint was made %d times; want it once", made)
		}
		if err := registered.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if es, err := endpointer.Endpoints(); len(es) != 0 || err != nil {
			t.Errorf("got %d endpoints, %v of a service that was deregistered; want none", len(es), err)
		}
	})
}

func TestNewInstancerAndNewBalancerNameTheArgumentThatIsWrong(t *testing.T) {
	mesh := open(t, discovery.Config{Source: &catalog.Fixed{}})
	i := newInstancer(t, mesh)
	_, noMesh := kitmesh.NewInstancer(nil, "user")
	_, aPort := kitmesh.NewInstancer(mesh, "user:80")
	_, noInstancer := kitmesh.NewBalancer(nil, nil, nil)
	_, noFactory := kitmesh.NewBalancer(i, nil, nil)
	got := []string{noMesh.Error(), aPort.Error(), noInstancer.Error(), noFactory.Error()}
	want := []string{
		"kitmesh: mesh is nil; want an open one",
		`kitmesh: service is "user:80"; want a service's name of up to 128 letters, digits, '-', '.' and '_', perhaps after https://`,
		"kitmesh: instancer is nil; want one that NewInstancer made",
		"kitmesh: factory is nil; want a function that makes the endpoint of an instance",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
