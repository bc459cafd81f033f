package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/internal/tlstest"
	"github.com/rollcall-mesh/rollcall/services/gateway"
)

// rpc is an instance of order that speaks gRPC, on loopback.
type rpc struct {
	id     string
	at     net.Addr
	server *grpcmesh.Server
	served atomic.Int64 // calls that came to a handler
	unary  func(ctx context.Context, said string) (string, error)
	stream func(s grpc.ServerStream) error
}

// The methods of an rpc.
const (
	rpcDo    = "/rollcall.test.Orders/Do"
	rpcWatch = "/rollcall.test.Orders/Watch"
	rpcChat  = "/rollcall.test.Orders/Chat"
)

// rpcRoutes lead to an rpc, by the path or by the host.
var rpcRoutes = []gateway.Route{{Prefix: "/rollcall.test.Orders", Service: "order"}, {Host: "rpc.example", Prefix: "/", Service: "order"}}

// startRPC starts an instance that says it is one of a service; it answers each message
// with its ID, and an end by none.
func startRPC(t *testing.T, id, service string) *rpc {
	t.Helper()
	i := &rpc{id: id}
	i.unary = func(_ context.Context, said string) (string, error) { return id + ":" + said, nil }
	i.stream = func(s grpc.ServerStream) error {
		for {
			in := new(wrapperspb.StringValue)
			if err := s.RecvMsg(in); err != nil {
				return nil //nolint:nilerr // all of it was sent
			}
			for range 2 {
				if err := s.SendMsg(wrapperspb.String(id + ":" + in.GetValue())); err != nil {
					return err
				}
			}
		}
	}
	server, err := grpcmesh.NewServer(grpcmesh.ServerConfig{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	stream := func(_ any, s grpc.ServerStream) error { i.served.Add(1); return i.stream(s) }
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "rollcall.test.Orders", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Do", Handler: func(_ any, ctx context.Context, dec func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			return around(ctx, in, &grpc.UnaryServerInfo{Server: i, FullMethod: rpcDo}, func(ctx context.Context, _ any) (any, error) {
				i.served.Add(1)
				out, err := i.unary(ctx, in.GetValue())
				return wrapperspb.String(out), err
			})
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Watch", ServerStreams: true, Handler: stream},
			{StreamName: "Chat", ServerStreams: true, ClientStreams: true, Handler: stream},
		},
	}, i)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i.at, i.server = l.Addr(), server
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return i
}

func entryAt(t *testing.T, id string, at net.Addr, tags ...string) catalog.Instance {
	t.Helper()
	addr := netip.MustParseAddrPort(at.String())
	return catalog.Instance{ID: id, Host: addr.Addr().String(), Port: int(addr.Port()), Tags: tags}
}

// offerRPC makes these the instances of order.
func (d *door) offerRPC(instances ...*rpc) {
	d.t.Helper()
	var entries []catalog.Instance
	for _, i := range instances {
		entries = append(entries, entryAt(d.t, i.id, i.at, catalog.GRPC))
	}
	if err := d.fleet.Set("order", entries...); err != nil {
		d.t.Fatal(err)
	}
}

// rpcClient is grpc-go's own client of the gateway.
func (d *door) rpcClient(options ...grpc.DialOption) *grpc.ClientConn {
	d.t.Helper()
	return d.rpcClientWith(insecure.NewCredentials(), options...)
}

func (d *door) rpcClientWith(creds credentials.TransportCredentials, options ...grpc.DialOption) *grpc.ClientConn {
	d.t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(d.url, "http://"),
		append(options, grpc.WithTransportCredentials(creds), grpc.WithDisableRetry())...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { cc.Close() })
	return cc
}

func callRPC(ctx context.Context, cc *grpc.ClientConn, say string, opts ...grpc.CallOption) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := new(wrapperspb.StringValue)
	err := cc.Invoke(ctx, rpcDo, wrapperspb.String(say), out, opts...)
	return out.GetValue(), err
}

func chatRPC(ctx context.Context, t *testing.T, cc *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, rpcChat)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sayAndHear(t *testing.T, s grpc.ClientStream, say, want string) {
	t.Helper()
	if err := s.SendMsg(wrapperspb.String(say)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		in := new(wrapperspb.StringValue)
		if err := s.RecvMsg(in); err != nil || in.GetValue() != want {
			t.Fatalf("got %q, %v; want %q", in.GetValue(), err, want)
		}
	}
}

func TestGRPCCallGoesByPathOrHostWithItsMetadata(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: rpcRoutes})
	i := startRPC(t, "order-rpc", "order")
	var seen metadata.MD
	i.unary = func(ctx context.Context, said string) (string, error) {
		seen, _ = metadata.FromIncomingContext(ctx)
		_ = grpc.SendHeader(ctx, metadata.Pairs("x-head", "h", "rollcall-secret", "s"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-tail", "t", "x-tail-bin", "\x00\x01", "rollcall-secret", "s"))
		return "heard " + said, nil
	}
	d.offerRPC(i)
	for _, cc := range []*grpc.ClientConn{d.rpcClient(), d.rpcClient(grpc.WithAuthority("rpc.example"))} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-said", "a", "x-said", "b", "x-raw-bin", "\x00\xff", "rollcall-service", "user", "x-forwarded-for", "6.6.6.6")
		var head, tail metadata.MD
		got, err := callRPC(ctx, cc, "hello", grpc.Header(&head), grpc.Trailer(&tail))
		if err != nil || got != "heard hello" {
			t.Fatalf("got %q, %v", got, err)
		}
		for name, want := range map[string]string{"x-said": "a,b", "x-raw-bin": "\x00\xff", "rollcall-service": "order", "x-forwarded-for": "127.0.0.1"} {
			if got := strings.Join(seen.Get(name), ","); got != want {
				t.Errorf("the service sees %s: %q; want %q", name, got, want)
			}
		}
		if h, s := head.Get("x-head"), head.Get("x-served-by"); len(h) != 1 || h[0] != "h" || len(s) != 1 || s[0] != "order-rpc" {
			t.Errorf("the header is %v", head)
		}
		if v, b := tail.Get("x-tail"), tail.Get("x-tail-bin"); len(v) != 1 || v[0] != "t" || len(b) != 1 || b[0] != "\x00\x01" {
			t.Errorf("the trailer is %v", tail)
		}
		for _, md := range []metadata.MD{head, tail} {
			for name := range md {
				if strings.HasPrefix(name, "rollcall-") {
					t.Errorf("%s has gone out", name)
				}
			}
		}
	}
}

func TestGRPCComesOverTLSToo(t *testing.T) {
	t.Parallel()
	authority := tlstest.New(t, "outside")
	cfg := &tls.Config{Certificates: []tls.Certificate{authority.Sign(time.Hour, "rpc.example").Certificate(t)}}
	d := open(t, options{learned: rpcRoutes, tls: cfg})
	d.offerRPC(startRPC(t, "order-rpc", "order"))
	cc := d.rpcClientWith(credentials.NewTLS(&tls.Config{RootCAs: authority.Pool(), ServerName: "rpc.example"}))
	if got, err := callRPC(t.Context(), cc, "hello"); err != nil || got != "order-rpc:hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestServicesGRPCStatusComesUnchanged(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: rpcRoutes})
	for _, headed := range []bool{false, true} {
		for _, code := range []codes.Code{codes.NotFound, codes.Internal, codes.Unavailable, codes.ResourceExhausted} {
			i, other := startRPC(t, "order-rpc", "order"), startRPC(t, "order-other", "order")
			want, err := status.New(code, "no such order: 50% of \u00fc").WithDetails(&errdetails.ErrorInfo{Domain: "shop", Reason: "GONE"})
			if err != nil {
				t.Fatal(err)
			}
			i.unary = func(ctx context.Context, _ string) (string, error) {
				if headed {
					_ = grpc.SendHeader(ctx, metadata.Pairs("x-head", "h"))
				}
				return "", want.Err()
			}
			other.unary = i.unary
			d.offerRPC(i, other)
			_, err = callRPC(t.Context(), d.rpcClient(), "")
			got := status.Convert(err)
			if got.Code() != code || got.Message() != want.Message() || len(got.Details()) != 1 || i.served.Load()+other.served.Load() != 1 {
				t.Errorf("got %v with %v after %d calls; want %v after one", err, got.Details(), i.served.Load()+other.served.Load(), want)
			}
		}
	}
}

func TestGRPCStreamsBothWaysForAsLongAsItLikes(t *testing.T) {
	t.Parallel()
	// Neither the time for an answer nor that for a piece of a body is for a stream that rests.
	d := open(t, options{learned: rpcRoutes, answerTimeout: 50 * time.Millisecond, stream: 100 * time.Millisecond})
	i := startRPC(t, "order-rpc", "order")
	d.offerRPC(i)
	cc := d.rpcClient()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	s := chatRPC(ctx, t, cc)
	for n := range 3 {
		sayAndHear(t, s, fmt.Sprint(n), fmt.Sprint("order-rpc:", n))
		time.Sleep(150 * time.Millisecond)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v; want EOF", err)
	}
	rested := startRPC(t, "order-rested", "order")
	rested.stream = func(s grpc.ServerStream) error {
		time.Sleep(200 * time.Millisecond)
		return s.SendMsg(wrapperspb.String("at last"))
	}
	d.offerRPC(rested)
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, rpcWatch)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SendMsg(wrapperspb.String("")), s.CloseSend()); err != nil {
		t.Fatal(err)
	}
	in := new(wrapperspb.StringValue)
	if err := s.RecvMsg(in); err != nil || in.GetValue() != "at last" {
		t.Errorf("got %q, %v; want what came late", in.GetValue(), err)
	}
}

func TestGRPCHeaderDoesNotWaitForAMessage(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: rpcRoutes})
	i := startRPC(t, "order-rpc", "order")
	start := make(chan struct{})
	i.stream = func(s grpc.ServerStream) error {
		if err := s.SendHeader(metadata.Pairs("x-head", "h")); err != nil {
			return err
		}
		<-start
		return s.SendMsg(wrapperspb.String("done"))
	}
	d.offerRPC(i)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cc := d.rpcClient()
	var open []grpc.ClientStream
	for _, method := range []string{rpcChat, rpcWatch} {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: method == rpcChat}, method)
		if err != nil {
			t.Fatal(err)
		}
		if method == rpcWatch {
			if err := errors.Join(s.SendMsg(wrapperspb.String("")), s.CloseSend()); err != nil {
				t.Fatal(err)
			}
		}
		if head, err := s.Header(); err != nil || len(head.Get("x-head")) != 1 {
			t.Fatalf("%s: the header is %v, %v", method, head, err)
		}
		open = append(open, s)
	}
	close(start)
	for _, s := range open {
		in := new(wrapperspb.StringValue)
		if err := s.RecvMsg(in); err != nil || in.GetValue() != "done" {
			t.Errorf("got %q, %v", in.GetValue(), err)
		}
		if err := s.RecvMsg(in); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v; want EOF", err)
		}
	}
}

func TestGRPCDeadlineEndsTheCallAndGoesOnReduced(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: rpcRoutes, answerTimeout: time.Hour})
	i := startRPC(t, "order-rpc", "order")
	left := make(chan time.Duration, 1)
	i.unary = func(ctx context.Context, _ string) (string, error) {
		by, _ := ctx.Deadline()
		left <- time.Until(by)
		<-ctx.Done()
		return "", ctx.Err()
	}
	d.offerRPC(i)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := d.rpcClient().Invoke(ctx, rpcDo, wrapperspb.String(""), new(wrapperspb.StringValue)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v; want DEADLINE_EXCEEDED", err)
	}
	if got := <-left; got <= 0 || got > 200*time.Millisecond {
		t.Errorf("the service has %v left; want at most 200ms", got)
	}
	// A client that does not look at its own time hears of it from the gateway.
	i.unary = func(context.Context, string) (string, error) { time.Sleep(300 * time.Millisecond); return "", nil }
	r := d.request(http.MethodPost, rpcDo, strings.NewReader("\x00\x00\x00\x00\x00"), "Content-Type", "application/grpc", "Te", "trailers", "Grpc-Timeout", "50m")
	began := time.Now()
	resp, err := d.h2c().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if code := resp.Header.Get("Grpc-Status"); resp.StatusCode != 200 || code != "4" && resp.Trailer.Get("Grpc-Status") != "4" {
		t.Errorf("got %s with %v; want status 4", resp.Status, resp.Header)
	}
	if took := time.Since(began); took > 250*time.Millisecond {
		t.Errorf("it took %v; want some 50ms", took)
	}
}

func TestGRPCCallOfAnotherServicesInstanceOrAFullOneIsTriedElsewhere(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *rpc{
		"another service's": func(t *testing.T) *rpc { return startRPC(t, "order-odd", "user") },
		"full": func(t *testing.T) *rpc {
			i := startRPC(t, "order-odd", "order")
			i.unary = func(ctx context.Context, _ string) (string, error) { return "", grpcmesh.Overloaded(ctx) }
			return i
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t, options{learned: rpcRoutes, quiet: true})
			odd, good := start(t), startRPC(t, "order-good", "order")
			d.offerRPC(odd, good)
			cc := d.rpcClient()
			for n := range 30 {
				if got, err := callRPC(t.Context(), cc, fmt.Sprint(n)); err != nil || got != fmt.Sprint("order-good:", n) {
					t.Fatalf("call %d: %q, %v", n, got, err)
				}
			}
			if good.served.Load() != 30 {
				t.Errorf("%d calls were served; want 30", good.served.Load())
			}
			d.offerRPC(odd)
			if _, err := callRPC(t.Context(), cc, ""); name != "full" && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "order can't be reached")) {
				t.Errorf("got %v; want UNAVAILABLE of the gateway's own", err)
			}
		})
	}
}

func TestKilledGRPCInstanceFailsNoCallThatMayBeDoneTwice(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: rpcRoutes, quiet: true})
	a, b := startRPC(t, "order-a", "order"), startRPC(t, "order-b", "order")
	d.offerRPC(a, b)
	cc := d.rpcClient()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var calls, failed atomic.Int64
	var calling sync.WaitGroup
	for range 4 {
		calling.Go(func() {
			for ctx.Err() == nil {
				_, err := callRPC(metadata.AppendToOutgoingContext(context.WithoutCancel(ctx), "idempotency-key", "1"), cc, "")
				calls.Add(1)
				if err != nil {
					failed.Add(1)
					t.Error(err)
				}
			}
		})
	}
	until := func(n int64) {
		for deadline := time.Now().Add(limit); calls.Load() < n && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
	until(100)
	a.server.Stop()
	until(calls.Load() + 200)
	stop()
	calling.Wait()
	if failed.Load() > 0 || a.served.Load() == 0 || b.served.Load() == 0 {
		t.Errorf("%d of %d calls failed; %d and %d were served", failed.Load(), calls.Load(), a.served.Load(), b.served.Load())
	}
}

func TestEntriesOfHTTPAndOfGRPCAreToldApart(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: rpcRoutes})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, r.URL.Path) }))
	defer web.Close()
	i := startRPC(t, "order-rpc", "order")
	entries := []catalog.Instance{entryAt(t, "order-web", web.Listener.Addr(), catalog.HTTP), entryAt(t, "order-rpc", i.at, catalog.GRPC)}
	if err := d.fleet.Set("order", entries...); err != nil {
		t.Fatal(err)
	}
	cc := d.rpcClient()
	for range 10 {
		if got, err := callRPC(t.Context(), cc, "x"); err != nil || got != "order-rpc:x" {
			t.Fatalf("by gRPC: %q, %v", got, err)
		}
		if _, body := d.do(d.request(http.MethodGet, "/orders/1", nil)); body != "HTTP/1.1/orders/1" {
			t.Fatalf("by HTTP: %q", body)
		}
	}
	if err := d.fleet.Set("order", entries[0]); err != nil {
		t.Fatal(err)
	}
	_, err := callRPC(t.Context(), cc, "")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "order has no instance that speaks gRPC") {
		t.Errorf("got %v; want UNAVAILABLE that says why", err)
	}
	if err := d.fleet.Set("order", entries[1]); err != nil {
		t.Fatal(err)
	}
	resp, body := d.do(d.request(http.MethodGet, "/orders/1", nil))
	var p unserved
	if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != http.StatusServiceUnavailable || p.Known != 0 {
		t.Errorf("by HTTP: %s %s; want 503 and no instance known", resp.Status, body)
	}
}
