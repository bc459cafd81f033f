package grpcmesh_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestCallsGoToInstancesThatSpeakGRPCAndNameTheService(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	var named atomic.Value
	a.answers(func(ctx context.Context, _ string) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		named.Store(strings.Join(md.Get("rollcall-service"), ","))
		return "", nil
	})
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a)
	web := b.entry()
	web.Tags = []string{catalog.HTTP}
	if err := f.source.Set("order", a.entry(), web); err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "rollcall-service", "user") // as a handler that hands all on
	for range 20 {
		if _, _, err := f.call(ctx, do, ""); err != nil {
			t.Fatal(err)
		}
	}
	if a.served.Load() != 20 || b.served.Load() != 0 {
		t.Errorf("served %d and %d; want all by the one that speaks gRPC", a.served.Load(), b.served.Load())
	}
	if named.Load() != "order" {
		t.Errorf("the call named %q; want order", named.Load())
	}
}

// load makes calls from several goroutines until stop is called, which returns how
// many there were. None may fail.
func (f *fleet) load(ctx context.Context, method string) (stop func() int64) {
	var calls atomic.Int64
	var callers sync.WaitGroup
	ending := make(chan struct{})
	for n := range 4 {
		callers.Go(func() {
			for {
				select {
				case <-ending:
					return
				default:
				}
				say := strconv.Itoa(n)
				got, report, err := f.call(ctx, method, say)
				if err != nil {
					f.t.Errorf("%s: %v (tries %+v)", method, err, report.Tries)
					return
				}
				if !strings.HasSuffix(got, ":"+say) {
					f.t.Errorf("%s: got %q; want the answer to %q", method, got, say)
				}
				calls.Add(1)
			}
		})
	}
	return func() int64 {
		close(ending)
		callers.Wait()
		return calls.Load()
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestKilledInstanceFailsNoRepeatableCall(t *testing.T) {
	t.Parallel()
	a, b, c := start(t, "a"), start(t, "b"), start(t, "c")
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a, b, c)
	stop := f.load(t.Context(), get)
	eventually(t, "calls at all", func() bool { return min(a.served.Load(), b.served.Load(), c.served.Load()) > 20 })
	a.server.Stop() // its connections are reset, amid calls
	had := b.served.Load() + c.served.Load()
	eventually(t, "calls at the others", func() bool { return b.served.Load()+c.served.Load() > had+200 })
	if n := stop(); n < 200 {
		t.Errorf("%d calls; want some", n)
	}
}

func TestPausedInstanceFailsNoRepeatableCall(t *testing.T) {
	t.Parallel()
	for _, method := range []string{get, put} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			a, b, c := start(t, "a"), start(t, "b"), start(t, "c")
			f := join(t, httpmesh.Config{TryTimeout: 150 * time.Millisecond}, grpcmesh.ClientConfig{}, a, b, c)
			stop := f.load(t.Context(), method)
			eventually(t, "calls at all", func() bool { return min(a.served.Load(), b.served.Load(), c.served.Load()) > 20 })
			a.pause()
			had := b.served.Load() + c.served.Load()
			eventually(t, "calls at the others", func() bool { return b.served.Load()+c.served.Load() > had+300 })
			stop()
		})
	}
}

// One that was paused before there was a connection takes the dial and says nothing.
func TestPausedInstanceWithoutAConnectionIsPassedOver(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	a.pause()
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a, b)
	began := time.Now()
	f.must(30, do) // nothing was sent, so it does not matter what may be repeated
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("30 calls took %v; want one or two waits of DialTimeout", took)
	}
	if b.served.Load() != 30 {
		t.Errorf("%d calls served; want each once", b.served.Load())
	}
}

func TestDrainedInstanceIsLeftWithoutABrokenCall(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	release, entered := make(chan struct{}), make(chan struct{}, 8)
	a.answers(func(_ context.Context, said string) (string, error) {
		if said == "long" {
			entered <- struct{}{}
			<-release
		}
		return "a:" + said, nil
	})
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a)
	long := make(chan error, 1)
	go func() {
		got, _, err := f.call(t.Context(), do, "long")
		if err == nil && got != "a:long" {
			err = fmt.Errorf("got %q", got)
		}
		long <- err
	}()
	<-entered
	f.set(a, b)
	stop := f.load(t.Context(), do) // may not be done twice
	eventually(t, "calls at both", func() bool { return min(a.served.Load(), b.served.Load()) > 20 })
	stopped := make(chan struct{})
	go func() { defer close(stopped); a.server.GracefulStop() }() // GOAWAY, while calls come
	had := b.served.Load()
	eventually(t, "calls at the other", func() bool { return b.served.Load() > had+200 })
	f.set(b)
	eventually(t, "calls at the one left", func() bool { return b.served.Load() > had+400 })
	stop()
	close(release)
	if err := <-long; err != nil {
		t.Errorf("the call under way: %v; want its answer", err)
	}
	<-stopped
}

func TestInstanceThatLeavesTheCatalogKeepsItsCalls(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	release, entered := make(chan struct{}), make(chan struct{}, 1)
	a.answers(func(context.Context, string) (string, error) {
		entered <- struct{}{}
		<-release
		return "a", nil
	})
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a)
	long := make(chan error, 1)
	go func() { _, _, err := f.call(t.Context(), do, ""); long <- err }()
	<-entered
	f.set(b)
	f.must(10, do)
	close(release)
	if err := <-long; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if b.served.Load() != 10 {
		t.Errorf("%d calls at the instance left; want 10", b.served.Load())
	}
}

// refusal is a status with details.
func refusal(t testing.TB, code codes.Code, text string, detail ...*errdetails.ErrorInfo) error {
	s := status.New(code, text)
	for _, d := range detail {
		var err error
		if s, err = s.WithDetails(d); err != nil {
			t.Error(err)
		}
	}
	return s.Err()
}

func TestRefusalsBeforeAnyWorkAreTriedElsewhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refuse func(ctx context.Context) error
		want   outcome.Code
	}{
		"another service's": {func(context.Context) error {
			return refusal(t, codes.Unavailable, "this is user", &errdetails.ErrorInfo{Domain: "rollcall", Reason: "WRONG_SERVICE"})
		}, outcome.Misdirected},
		"overload by the trailer": {func(ctx context.Context) error {
			_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "50"))
			return status.Error(codes.ResourceExhausted, "full")
		}, outcome.Overload},
		"overload by RetryInfo": {func(context.Context) error {
			s, err := status.New(codes.ResourceExhausted, "full").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)})
			if err != nil {
				t.Error(err)
			}
			return s.Err()
		}, outcome.Overload},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := start(t, "a"), start(t, "b")
			a.answers(func(ctx context.Context, _ string) (string, error) { return "", c.refuse(ctx) })
			f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a, b)
			seen := false
			for n := range 30 {
				_, report, err := f.call(t.Context(), do, "")
				if err != nil {
					t.Fatalf("call %d: %v", n, err)
				}
				seen = seen || report.Tries[0].Outcome == c.want
			}
			if !seen {
				t.Errorf("no try ended as %v", c.want)
			}
		})
	}
}

func TestWhatMayHaveBeenServedIsNotDoneTwice(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	for _, i := range []*instance{a, b} {
		i.answers(func(context.Context, string) (string, error) { return "", status.Error(codes.Unavailable, "half done") })
	}
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{Repeatable: map[string]bool{put: false}}, a, b)
	for _, method := range []string{do, put} {
		_, report, err := f.call(t.Context(), method, "")
		if status.Code(err) != codes.Unavailable || len(report.Tries) != 1 {
			t.Errorf("%s: %v after %d tries; want UNAVAILABLE after one", method, err, len(report.Tries))
		}
		_, report, err = f.call(withKey(t.Context()), method, "")
		if status.Code(err) != codes.Unavailable || len(report.Tries) != 2 {
			t.Errorf("%s with a key: %v after %d tries; want UNAVAILABLE after both", method, err, len(report.Tries))
		}
	}
}

func TestPushbackThatSaysNeverEndsTheCall(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	for _, i := range []*instance{a, b} {
		i.answers(func(ctx context.Context, _ string) (string, error) {
			_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1"))
			return "", status.Error(codes.Unavailable, "go away")
		})
	}
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a, b)
	if _, report, err := f.call(t.Context(), get, ""); status.Code(err) != codes.Unavailable || len(report.Tries) != 1 {
		t.Errorf("%v after %d tries; want UNAVAILABLE after one", err, len(report.Tries))
	}
}

func TestOnlyInstanceIsTriedAgainWhenItSaysSo(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	a.answers(func(ctx context.Context, _ string) (string, error) {
		if a.served.Load() > 1 {
			return "now", nil
		}
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "40"))
		return "", status.Error(codes.Unavailable, "soon")
	})
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a)
	began := time.Now()
	got, _, err := f.call(t.Context(), get, "")
	if err != nil || got != "now" || time.Since(began) < 40*time.Millisecond {
		t.Errorf("got %q, %v after %v; want now, after 40ms", got, err, time.Since(began))
	}
}

func TestServicesOwnWordComesAsItIs(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	want := status.New(codes.NotFound, "no order 7")
	for _, i := range []*instance{a, b} {
		i.answers(func(context.Context, string) (string, error) { return "", want.Err() })
	}
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a, b)
	_, report, err := f.call(t.Context(), get, "")
	if got := status.Convert(err); got.Code() != want.Code() || got.Message() != want.Message() {
		t.Errorf("got %v; want %v", err, want.Err())
	}
	if len(report.Tries) != 1 || report.Outcome != outcome.OK || !report.Tries[0].Used {
		t.Errorf("got %+v; want one try, used", report)
	}
}

func TestFailureIsAStatusWithTheReportOfEveryTry(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a, b)
	for _, i := range []*instance{a, b} {
		i.server.Stop()
	}
	_, _, err := f.call(t.Context(), get, "")
	var failed *grpcmesh.Error
	if !errors.As(err, &failed) || status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v; want a *grpcmesh.Error that is UNAVAILABLE", err)
	}
	if n := len(failed.Report.Tries); n < 2 || failed.Report.Tries[0].Outcome != outcome.Unreachable {
		t.Errorf("got %+v; want a try at each, unreachable", failed.Report.Tries)
	}
	f.set()
	_, _, err = f.call(t.Context(), get, "")
	if !errors.Is(err, catalog.ErrNoInstance) || status.Code(err) != codes.Unavailable {
		t.Errorf("got %v; want ErrNoInstance, UNAVAILABLE", err)
	}
}

func TestSilenceIsOvertakenByATryBesideIt(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	held := make(chan struct{})
	t.Cleanup(func() { close(held) })
	var first atomic.Bool
	for _, i := range []*instance{a, b} {
		i.answers(func(ctx context.Context, said string) (string, error) {
			if !first.Swap(true) {
				select {
				case <-held:
				case <-ctx.Done():
				}
				return "late", nil
			}
			_ = grpc.SetHeader(ctx, metadata.Pairs("who", i.id))
			return i.id + ":" + said, nil
		})
	}
	f := join(t, httpmesh.Config{TryTimeout: 50 * time.Millisecond}, grpcmesh.ClientConfig{}, a, b)
	var header metadata.MD
	ended := 0
	got, report, err := f.call(t.Context(), get, "x", grpc.Header(&header), grpc.OnFinish(func(error) { ended++ }))
	if err != nil || len(report.Tries) != 2 {
		t.Fatalf("got %v, %+v; want an answer of the second try", err, report.Tries)
	}
	served, ok := report.Served()
	if !ok || got != served.ID+":x" || len(header.Get("who")) != 1 || header.Get("who")[0] != served.ID {
		t.Errorf("got %q with header %v of %s; want the second's own", got, header, served.ID)
	}
	if report.Tries[0].Outcome != outcome.Silent || ended != 1 {
		t.Errorf("first try %v, OnFinish called %d times; want silent, once", report.Tries[0].Outcome, ended)
	}
}

func TestConnectionIsRenewedByAgeWithoutABrokenCall(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	f := join(t, httpmesh.Config{MaxConnAge: 20 * time.Millisecond}, grpcmesh.ClientConfig{}, a)
	stop := f.load(t.Context(), do)
	eventually(t, "connections made anew", func() bool { return a.lis.accepted.Load() > 8 })
	if n := stop(); n != a.served.Load() {
		t.Errorf("%d calls were served %d times", n, a.served.Load())
	}
}

func TestTLSThatFitsNotIsAClearErrorBeforeAByteIsSent(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	secure := a.entry()
	secure.Meta = map[string]string{catalog.MetaTLS: "true"}
	for name, c := range map[string]struct {
		cfg   grpcmesh.ClientConfig
		entry catalog.Instance
		want  string
	}{
		"TLS without credentials": {grpcmesh.ClientConfig{}, secure, "1 speak TLS, and the client has no Credentials"},
		"credentials without TLS": {grpcmesh.ClientConfig{Credentials: credentials.NewTLS(nil)}, a.entry(), "1 speak plain text, and the client has Credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			f := join(t, httpmesh.Config{}, c.cfg)
			if err := f.source.Set("order", c.entry); err != nil {
				t.Fatal(err)
			}
			_, _, err := f.call(t.Context(), get, "")
			if !errors.Is(err, catalog.ErrNoInstance) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v; want %s", err, c.want)
			}
			if a.lis.accepted.Load() != 0 {
				t.Error("a connection was made")
			}
		})
	}
}

func TestInstanceThatSpeaksTLSIsVerifiedByTheServicesName(t *testing.T) {
	t.Parallel()
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate, which is example.com's
	t.Cleanup(web.Close)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	a := start(t, "a", grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0])))
	entry := a.entry()
	entry.Meta = map[string]string{catalog.MetaTLS: "true"}
	for name, fails := range map[string]bool{"": true, "example.com": false} {
		f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{Credentials: credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: name})})
		if err := f.source.Set("order", entry); err != nil {
			t.Fatal(err)
		}
		_, _, err := f.call(t.Context(), get, "")
		if fails != (err != nil) || fails && !strings.Contains(err.Error(), "not order") {
			t.Errorf("with the name %q: %v", name, err)
		}
	}
}

func TestDeadlineOfTheCallerProvesNothingAfterAShortWait(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	a.answers(func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", status.FromContextError(ctx.Err()).Err()
	})
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a)
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		_, report, err := f.call(ctx, get, "")
		cancel()
		if status.Code(err) != codes.DeadlineExceeded || report.Outcome != outcome.Timeout {
			t.Fatalf("got %v, %v; want DEADLINE_EXCEEDED, timeout", err, report.Outcome)
		}
	}
}

func TestMessageThatIsTooLargeIsTheCallersFault(t *testing.T) {
	t.Parallel()
	a := start(t, "a", grpc.MaxRecvMsgSize(64))
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a)
	_, report, err := f.call(t.Context(), get, strings.Repeat("x", 100))
	if status.Code(err) != codes.ResourceExhausted || report.Outcome != outcome.CallerError || len(report.Tries) != 1 {
		t.Errorf("got %v, %v after %d tries; want RESOURCE_EXHAUSTED, the caller's fault, once", err, report.Outcome, len(report.Tries))
	}
	_, report, err = f.call(t.Context(), get, "\xff")
	if status.Code(err) != codes.Internal || report.Outcome != outcome.CallerError {
		t.Errorf("got %v, %v; want INTERNAL, the caller's fault", err, report.Outcome)
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	t.Parallel()
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{})
	for want, make := range map[string]func() (*grpc.ClientConn, error){
		"the mesh is nil":     func() (*grpc.ClientConn, error) { return grpcmesh.NewClient(nil, "order", grpcmesh.ClientConfig{}) },
		"the service name is": func() (*grpc.ClientConn, error) { return grpcmesh.NewClient(f.mesh, "a/b", grpcmesh.ClientConfig{}) },
		`Repeatable has "Get"`: func() (*grpc.ClientConn, error) {
			return grpcmesh.NewClient(f.mesh, "order", grpcmesh.ClientConfig{Repeatable: map[string]bool{"Get": true}})
		},
	} {
		if _, err := make(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %s", err, want)
		}
	}
}

func TestClosedClientAndClosedMeshRefuseCalls(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a)
	other, err := grpcmesh.NewClient(f.mesh, "order", grpcmesh.ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Invoke(t.Context(), get, wrapperspb.String(""), new(wrapperspb.StringValue)); status.Code(err) != codes.Canceled || !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("got %v; want CANCELED, closed", err)
	}
	f.must(1, get)
}
