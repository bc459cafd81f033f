package grpcmesh_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

func TestStatusOfTheMeshTellsOfAClientUntilItIsClosed(t *testing.T) {
	t.Parallel()
	addr, err := consultest.New(t).Listen()
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mesh.Close() })
	a := start(t, "a")
	if _, err := mesh.Register(registration.Config{
		Service: "order", ID: "a", Protocol: catalog.GRPC, Host: "127.0.0.1", Port: a.lis.Addr().(*net.TCPAddr).Port,
	}); err != nil {
		t.Fatal(err)
	}
	one := func() (i discovery.InstanceStatus) {
		t.Helper()
		eventually(t, "one instance of order", func() bool {
			if _, err := mesh.Latest(t.Context(), "order"); err != nil {
				t.Fatal(err)
			}
			services := mesh.Status().Services
			if len(services) != 1 || len(services[0].Instances) != 1 {
				return false
			}
			i = services[0].Instances[0]
			return true
		})
		return i
	}
	one()

	cc, err := grpcmesh.NewClient(mesh, "order", grpcmesh.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	entered, leave, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	a.answers(func(_ context.Context, said string) (string, error) {
		close(entered)
		<-leave
		return said, nil
	})
	go func() { done <- cc.Invoke(t.Context(), get, wrapperspb.String("x"), new(wrapperspb.StringValue)) }()
	<-entered
	if i := one(); i.Protocol != "grpc" || i.InFlight != 1 || i.Connections != 1 || i.Health != "healthy" {
		t.Errorf("got %+v with a call under way; want 1 in flight over one connection, healthy", i)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
	eventually(t, "the call is counted", func() bool { return mesh.Status().Services[0].Calls.Requests == 1 })
	if left := mesh.Status().Services[0].RetriesLeft; left != 30 {
		t.Errorf("%d retries left; want those of a new budget", left)
	}
	if err := cc.Close(); err != nil {
		t.Fatal(err)
	}
	if i := one(); i.Connections != 0 || i.Health != "" {
		t.Errorf("got %+v when the client is closed; want nothing of it", i)
	}
}

func TestTriesSayAfterWhatTheyCameAndWhetherBesideOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm     func(i *instance)
		patience time.Duration
		after    outcome.Code
		beside   bool
	}{
		"refused": {func(i *instance) { i.server.Stop() }, time.Minute, outcome.Unreachable, false},
		"silent": {func(i *instance) {
			i.answers(func(ctx context.Context, _ string) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			})
		}, 100 * time.Millisecond, outcome.None, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := start(t, "a"), start(t, "b")
			c.harm(a)
			f := join(t, httpmesh.Config{TryTimeout: c.patience}, grpcmesh.ClientConfig{}, a, b)
			for range 10 { // the first or the second comes to a
				_, report, err := f.call(t.Context(), get, "")
				if err != nil {
					t.Fatal(err)
				}
				if len(report.Tries) == 1 {
					continue
				}
				first, second := report.Tries[0], report.Tries[1]
				if first.After != outcome.None || first.Beside || second.After != c.after || second.Beside != c.beside {
					t.Errorf("got %+v; want the second after %q, beside the first: %v", report.Tries, c.after, c.beside)
				}
				return
			}
			t.Error("no call was tried twice")
		})
	}
}
