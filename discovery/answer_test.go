package discovery_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
)

// toDefault has the default log go here until the test ends.
func toDefault(t *testing.T) *logtest.Buffer {
	t.Helper()
	var l logtest.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&l, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return &l
}

// deaf is the address of a listener that takes connections and says nothing.
func deaf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// closed is an address at which nothing listens.
func closed(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func failing(faults map[string]consultest.Fault) func(*testing.T) string {
	return func(t *testing.T) string {
		agent, addr := listen(t)
		for prefix, f := range faults {
			agent.Break(prefix, f)
		}
		return addr
	}
}

// The README's program, where no Consul is.
func TestProgramWithoutConsulIsToldWithinASecondAndFailsAfterFive(t *testing.T) {
	log, addr := toDefault(t), closed(t)
	t.Setenv("CONSUL_HTTP_ADDR", addr)
	mesh := open(t, discovery.Config{})
	began := time.Now()
	if took := tells(t, mesh, log, addr, "connection refused", "CONSUL_HTTP_ADDR"); took > 4*time.Second {
		t.Errorf("the log was silent for %s; want about a second at most", took)
	}
	if took := time.Since(began); took < 4900*time.Millisecond {
		t.Errorf("failed after %s; want 5s", took)
	}
}

func TestWhatIsWrongWithConsulIsToldWithWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		consul func(*testing.T) string
		wrong  []string // what happened, what to do
	}{
		"it is silent": {deaf, []string{"nothing came", "CONSUL_HTTP_ADDR"}},
		"it has no leader": {
			failing(map[string]consultest.Fault{"": consultest.Fail(http.StatusInternalServerError, "No cluster leader")}),
			[]string{"No cluster leader", "list-peers"},
		},
		"it refuses": {
			failing(map[string]consultest.Fault{"": consultest.Fail(http.StatusForbidden, "Permission denied")}),
			[]string{"Permission denied", "CONSUL_HTTP_TOKEN"},
		},
		"no token where the default is deny": {
			failing(map[string]consultest.Fault{
				"/v1/health": consultest.Anonymous(),
				"/v1/acl":    consultest.Fail(http.StatusForbidden, "token does not exist: ACL not found"),
			}),
			[]string{"without a token", "CONSUL_HTTP_TOKEN"},
		},
		"it is something else": {
			failing(map[string]consultest.Fault{"": consultest.Fail(http.StatusNotFound, "404 page not found")}),
			[]string{"404", "HTTP port"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logtest.Buffer
			addr := c.consul(t)
			mesh := open(t, discovery.Config{
				Consul: discovery.Consul{Address: addr}, InitialFetchTimeout: 2 * time.Second,
				Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
			tells(t, mesh, &log, addr, c.wrong...)
		})
	}
}

// tells asks for a service until that fails, and wants the error and the one line
// of the log to say what is wrong. It returns how long the log was silent.
func tells(t *testing.T, mesh *discovery.Mesh, log *logtest.Buffer, addr string, wrong ...string) (silent time.Duration) {
	t.Helper()
	began := time.Now()
	failed := make(chan error, 1)
	go func() {
		_, err := mesh.Client().Get("http://order/orders/1") // without a deadline
		failed <- err
	}()
	eventually(t, "a line in the log", func() bool { return log.String() != "" })
	silent = time.Since(began)
	var err error
	select {
	case err = <-failed:
	case <-time.After(patience):
		t.Fatalf("no error after %s", patience)
	}
	if !errors.Is(err, discovery.ErrNoAnswer) || errors.Is(err, discovery.ErrNoInstance) {
		t.Errorf("got %v; want ErrNoAnswer", err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("got %d lines in the log; want one:\n%s", n, log)
	}
	for _, want := range append(wrong, "http://"+addr, "order") {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %q; want it to say %q", err, want)
		}
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log is %q; want it to say %q", log, want)
		}
	}
	return silent
}

func TestFirstAnswerIsWaitedForAsLongAsTheSettingSays(t *testing.T) {
	t.Parallel()
	nowhere, quiet := discovery.Consul{Address: closed(t)}, slog.New(slog.DiscardHandler)
	short := open(t, discovery.Config{Consul: nowhere, InitialFetchTimeout: time.Millisecond, Log: quiet})
	if _, err := short.Latest(t.Context(), "order"); !errors.Is(err, discovery.ErrNoAnswer) {
		t.Errorf("got %v; want ErrNoAnswer", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second) // longer than the default
	defer cancel()
	endless := open(t, discovery.Config{Consul: nowhere, InitialFetchTimeout: -1, Log: quiet})
	if _, err := endless.Latest(ctx, "order"); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() == nil {
		t.Errorf("got %v; want the end of the context", err)
	}
}

func TestConsulThatComesInTimeIsNoErrorAndItsNextTroubleIsToldAnew(t *testing.T) {
	log := toDefault(t)
	agent, addr := listen(t)
	agent.Break("", consultest.Refuse())
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}, InitialFetchTimeout: patience})
	got := make(chan error, 1)
	go func() {
		_, err := mesh.Latest(context.Background(), "order")
		got <- err
	}()
	const line = "no usable answer from Consul"
	eventually(t, "a line", func() bool { return strings.Contains(log.String(), line) })
	agent.Mend()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	agent.Break("", consultest.Refuse())
	eventually(t, "a second line", func() bool { return strings.Count(log.String(), line) == 2 })
	if _, err := mesh.Latest(t.Context(), "order"); err != nil {
		t.Errorf("got %v; want the last set", err)
	}
}

func TestOwnSourceWaitsByItself(t *testing.T) {
	source := sourceFunc(func(ctx context.Context, service string) (*catalog.Snapshot, error) {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	mesh := open(t, discovery.Config{Source: source})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := mesh.Latest(ctx, "order"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, discovery.ErrNoAnswer) {
		t.Errorf("got %v; want what the source says", err)
	}
}

type sourceFunc func(ctx context.Context, service string) (*catalog.Snapshot, error)

func (f sourceFunc) Latest(ctx context.Context, service string) (*catalog.Snapshot, error) {
	return f(ctx, service)
}

func (sourceFunc) KeepAlive(string) {}

func TestLatestAllocatesNothingOnceThereIsASet(t *testing.T) {
	_, addr := listen(t)
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}})
	ctx := t.Context()
	if _, err := mesh.Latest(ctx, "order"); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10_000, func() {
		if _, err := mesh.Latest(ctx, "order"); err != nil {
			t.Error(err)
		}
	}); n >= 1 {
		t.Errorf("got %v allocations; want none", n)
	}
}
