package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	kitconsul "github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/lb"
	"github.com/go-kit/log"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/docs/examples/gokit/addsvc"
	"github.com/rollcall-mesh/rollcall/docs/examples/gokit/after"
	"github.com/rollcall-mesh/rollcall/docs/examples/gokit/before"
	"github.com/rollcall-mesh/rollcall/docs/examples/gokit/profilesvc"
)

// patience is how long anything here may take, on a machine that is busy.
const patience = time.Minute

// serveVariable has this test's program offer both services, as package before or
// after does, in place of testing; consulVariable is the address of its Consul.
const (
	serveVariable  = "GOKIT_EXAMPLE_SERVE"
	consulVariable = "GOKIT_EXAMPLE_CONSUL"
)

func TestMain(m *testing.M) {
	as := os.Getenv(serveVariable)
	if as == "" {
		os.Exit(m.Run())
	}
	if err := serve(as, os.Getenv(consulVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(as, address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	mesh, err := discovery.Open(ctx, discovery.Config{Consul: discovery.Consul{Address: address}})
	if err != nil {
		return err
	}
	client, err := api.NewClient(&api.Config{Address: address})
	if err != nil {
		return err
	}
	services := map[string]http.Handler{"profilesvc": profilesvc.MakeHandler(profilesvc.New()), "addsvc": addsvc.MakeHandler()}
	ended := make(chan error, len(services))
	for name, handler := range services {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		go func() {
			if as == "before" {
				ended <- before.Serve(ctx, kitconsul.NewClient(client), listener, name, handler, log.NewNopLogger())
				return
			}
			ended <- after.Serve(ctx, mesh, listener, name, handler)
		}()
	}
	for range services {
		err = errors.Join(err, <-ended)
	}
	return errors.Join(err, mesh.Close())
}

// start starts a process that offers both services, until the test ends.
func start(t *testing.T, as, address string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), self)
	cmd.Env = append(os.Environ(), serveVariable+"="+as, consulVariable+"="+address)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // again for one that was waited for: an error
	})
	return cmd
}

func tell(t *testing.T, cmd *exec.Cmd, s os.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, cfg discovery.Config) *discovery.Mesh {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	mesh, err := discovery.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	return mesh
}

// await returns when both services have so many instances, and so many of them, or
// more, pass.
func await(t *testing.T, mesh *discovery.Mesh, all, passing int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, service := range []string{"profilesvc", "addsvc"} {
		for {
			s, err := mesh.Latest(ctx, service)
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for i := range s.All() {
				if i.State == catalog.StatePassing {
					found++
				}
			}
			if s.Len() == all && found >= passing {
				break
			}
			select {
			case <-s.Superseded():
			case <-ctx.Done():
				t.Fatalf("%d of %d instances of %s pass; want %d of %d", found, s.Len(), service, passing, all)
			}
		}
	}
}

// load is what calls without a pause.
type load struct {
	stop    chan struct{}
	callers sync.WaitGroup
	calls   [4]atomic.Int64
}

var kinds = [4]string{"GetProfile", "PutProfile", "Sum", "Concat"}

func begin(t *testing.T, profiles profilesvc.Service, sums addsvc.Set) *load {
	t.Helper()
	l := &load{stop: make(chan struct{})}
	for kind, do := range [4]func(ctx context.Context) error{
		func(ctx context.Context) error {
			p, err := profiles.GetProfile(ctx, "ann")
			if err == nil && p.Name != "Ann" {
				err = fmt.Errorf("got %+v", p)
			}
			return err
		},
		func(ctx context.Context) error {
			return profiles.PutProfile(ctx, profilesvc.Profile{ID: "ann", Name: "Ann"})
		},
		func(ctx context.Context) error {
			v, err := sums.Sum(ctx, 1, 2)
			if err == nil && v != 3 {
				err = fmt.Errorf("1+2 is %d", v)
			}
			return err
		},
		func(ctx context.Context) error {
			v, err := sums.Concat(ctx, "a", "b")
			if err == nil && v != "ab" {
				err = fmt.Errorf("a+b is %s", v)
			}
			return err
		},
	} {
		for range 2 {
			l.callers.Go(func() {
				for {
					select {
					case <-l.stop:
						return
					case <-time.After(2 * time.Millisecond):
					}
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					if err := do(ctx); err != nil {
						t.Errorf("%s: %v", kinds[kind], err)
					}
					cancel()
					l.calls[kind].Add(1)
				}
			})
		}
	}
	return l
}

// more waits until each kind of call was made that often again.
func (l *load) more(t *testing.T, times int64) {
	t.Helper()
	limit := time.Now().Add(patience)
	for kind := range l.calls {
		for until := l.calls[kind].Load() + times; l.calls[kind].Load() < until; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s was not called %d times within %v", kinds[kind], times, patience)
			}
		}
	}
}

func (l *load) end() {
	close(l.stop)
	l.callers.Wait()
}

func TestMovedClientsLoseNoCallWhenInstancesAreKilledPausedAndScaled(t *testing.T) {
	t.Parallel()
	address := consultest.Real(t).Addr()
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: address}})
	instances := make([]*exec.Cmd, 3)
	for n, as := range []string{"after", "before", "after"} { // they move one at a time
		instances[n] = start(t, as, address)
	}
	await(t, mesh, 3, 3)
	profiles, err := after.Profiles(mesh)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := after.Sums(mesh)
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.NewClient(&api.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	old := before.Sums(kitconsul.NewClient(client), log.NewNopLogger())
	limit := time.Now().Add(patience)
	for answers := 0; answers < 6; { // two at each; it has half a second for a call, which a busy machine may not have
		switch v, err := old.Sum(t.Context(), 1, 2); {
		case err == nil && v == 3:
			answers++
		case err == nil || time.Now().After(limit):
			t.Fatalf("a client that has not moved: got %d, %v; want 3", v, err)
		}
	}
	load := begin(t, profiles, sums)
	defer load.end()
	load.more(t, 20)

	tell(t, instances[0], syscall.SIGKILL)
	load.more(t, 50)
	_ = instances[0].Wait()
	// What was killed is in the catalog still, and so is what is to be paused.
	tell(t, instances[1], syscall.SIGSTOP)
	load.more(t, 100)

	more := start(t, "after", address) // it is called as soon as it is seen
	start(t, "after", address)
	await(t, mesh, 5, 3) // whether Consul has found out about the other two or not
	load.more(t, 20)
	tell(t, instances[1], syscall.SIGCONT)
	load.more(t, 20)

	tell(t, more, syscall.SIGTERM)
	if err := more.Wait(); err != nil {
		t.Errorf("the instance that was told to leave: %v", err)
	}
	load.more(t, 20)
}

// hanging starts three instances of profilesvc, one of which accepts calls and
// answers none, and returns the Consul that they are registered with.
func hanging(t *testing.T) (client *api.Client, address string) {
	t.Helper()
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	client = agent.Client()
	quit := make(chan struct{})
	for n := range 3 {
		handler := profilesvc.MakeHandler(profilesvc.New())
		if n == 1 {
			handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
				case <-quit:
				}
			})
		}
		enter(t, client, "profilesvc", fmt.Sprint("profilesvc-", n), handler)
	}
	t.Cleanup(func() { close(quit) })
	return client, address
}

func enter(t *testing.T, client *api.Client, service, id string, handler http.Handler) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	port := server.Listener.Addr().(*net.TCPAddr).Port
	if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: service, Address: "127.0.0.1", Port: port}); err != nil {
		t.Fatal(err)
	}
}

// Of 12 calls, one after the other, at three instances, one of which hangs.
func TestWhatEachStepGainsWhenAnInstanceHangs(t *testing.T) {
	t.Parallel()
	for _, step := range []struct {
		name        string
		client      func(t *testing.T, client *api.Client, address string) profilesvc.Service
		least, most int // calls that fail
	}{
		{"before", func(_ *testing.T, client *api.Client, _ string) profilesvc.Service {
			return before.Profiles(kitconsul.NewClient(client), log.NewNopLogger())
		}, 4, 11},
		{"with kitmesh.Instancer", func(t *testing.T, _ *api.Client, address string) profilesvc.Service {
			mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: address}})
			instancer, err := kitmesh.NewInstancer(mesh, "profilesvc")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(instancer.Stop)
			endpointer := sd.NewEndpointer(instancer, getProfile, log.NewNopLogger())
			t.Cleanup(endpointer.Close)
			for es, err := endpointer.Endpoints(); err == nil && len(es) == 0; es, err = endpointer.Endpoints() {
				time.Sleep(time.Millisecond) // it makes them in a goroutine of its own
			}
			return profilesvc.Endpoints{Get: lb.Retry(3, 500*time.Millisecond, lb.NewRoundRobin(endpointer))}
		}, 4, 11},
		{"with kitmesh.Balancer", func(t *testing.T, _ *api.Client, address string) profilesvc.Service {
			// Patience is shorter than lb.Retry's time-out, so that silence counts.
			mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: address}, HTTP: httpmesh.Config{TryTimeout: 300 * time.Millisecond}})
			instancer, err := kitmesh.NewInstancer(mesh, "profilesvc")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(instancer.Stop)
			balancer, err := kitmesh.NewBalancer(instancer, getProfile, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(balancer.Close)
			return profilesvc.Endpoints{Get: lb.Retry(3, 500*time.Millisecond, balancer)}
		}, 1, 3},
		{"after", func(t *testing.T, _ *api.Client, address string) profilesvc.Service {
			profiles, err := after.Profiles(open(t, discovery.Config{Consul: discovery.Consul{Address: address}}))
			if err != nil {
				t.Fatal(err)
			}
			return profiles
		}, 0, 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			client, address := hanging(t)
			profiles := step.client(t, client, address)
			failed := 0
			var last error
			for range 12 {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				if _, err := profiles.GetProfile(ctx, "ann"); err != nil {
					failed, last = failed+1, err
				}
				cancel()
			}
			t.Logf("%d of 12 calls failed (%v)", failed, last)
			if failed < step.least || failed > step.most {
				t.Errorf("%d of 12 calls failed; want %d to %d (%v)", failed, step.least, step.most, last)
			}
		})
	}
}

func getProfile(instance string) (endpoint.Endpoint, io.Closer, error) {
	endpoints, err := profilesvc.MakeClientEndpoints(instance)
	return endpoints.Get, nil, err
}

// A profile is created, and the connection breaks before the answer: it may not be
// created again by itself.
func TestCallThatMayHaveBeenDoneIsDoneThriceBeforeAndOnceAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		client func(t *testing.T, client *api.Client, address string) profilesvc.Service
		want   int32
	}{
		{"before", func(_ *testing.T, client *api.Client, _ string) profilesvc.Service {
			return before.Profiles(kitconsul.NewClient(client), log.NewNopLogger())
		}, 3},
		{"after", func(t *testing.T, _ *api.Client, address string) profilesvc.Service {
			profiles, err := after.Profiles(open(t, discovery.Config{Consul: discovery.Consul{Address: address}}))
			if err != nil {
				t.Fatal(err)
			}
			return profiles
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			agent := consultest.New(t)
			address, err := agent.Listen()
			if err != nil {
				t.Fatal(err)
			}
			var done atomic.Int32
			for n := range 3 {
				enter(t, agent.Client(), "profilesvc", fmt.Sprint("profilesvc-", n), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					done.Add(1)
					panic(http.ErrAbortHandler)
				}))
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err = c.client(t, agent.Client(), address).PostProfile(ctx, profilesvc.Profile{ID: "bob", Name: "Bob"})
			if n := done.Load(); err == nil || n != c.want {
				t.Errorf("done %d times, and got %v; want %d times, and an error", n, err, c.want)
			}
		})
	}
}
