package grpcmesh_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

var (
	watchDesc = &grpc.StreamDesc{StreamName: "Watch", ServerStreams: true}
	chatDesc  = &grpc.StreamDesc{StreamName: "Chat", ServerStreams: true, ClientStreams: true}
)

// streams has an instance handle its streams so.
func (i *instance) streams(f func(s grpc.ServerStream) error) { i.stream.Store(&f) }

// readAll opens a stream with a message, and returns what comes.
func (f *fleet) readAll(ctx context.Context, desc *grpc.StreamDesc, method string, say ...string) ([]string, error) {
	s, err := f.cc.NewStream(ctx, desc, method)
	if err != nil {
		return nil, err
	}
	for _, text := range say {
		if err := s.SendMsg(wrapperspb.String(text)); err != nil {
			return nil, err
		}
	}
	if err := s.CloseSend(); err != nil {
		return nil, err
	}
	var got []string
	for {
		out := new(wrapperspb.StringValue)
		switch err := s.RecvMsg(out); {
		case errors.Is(err, io.EOF):
			return got, nil
		case err != nil:
			return got, err
		}
		got = append(got, out.GetValue())
	}
}

func TestStreamThatIsRefusedIsOpenedElsewhere(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	a.streams(func(grpc.ServerStream) error {
		return refusal(t, codes.Unavailable, "this is user", &errdetails.ErrorInfo{Domain: "rollcall", Reason: "WRONG_SERVICE"})
	})
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a, b)
	for n := range 20 {
		report := new(httpmesh.Report)
		got, err := f.readAll(grpcmesh.WithReport(t.Context(), report), watchDesc, watch, "x")
		if err != nil || strings.Join(got, " ") != "b:x:0 b:x:1 b:x:2" {
			t.Fatalf("stream %d: got %q, %v", n, got, err)
		}
		got, err = f.readAll(t.Context(), chatDesc, chat, "x", "y")
		if err != nil || len(got) != 6 || got[5] != "b:y:2" {
			t.Fatalf("chat %d: got %q, %v", n, got, err)
		}
		if in, ok := report.Served(); !ok || in.ID != "b" {
			t.Errorf("served by %q; want b", in.ID)
		}
	}
	if a.served.Load() == 0 {
		t.Error("the one that refuses was never asked")
	}
}

func TestStreamWhoseSidesBothSendBeforeTheyReadIsNotHeldUp(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	large := strings.Repeat("x", 8<<10)
	a.streams(func(s grpc.ServerStream) error {
		for range 40 { // more than a window holds, before anything is read
			if err := s.SendMsg(wrapperspb.String(large)); err != nil {
				return err
			}
		}
		for s.RecvMsg(new(wrapperspb.StringValue)) == nil {
		}
		return nil
	})
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{}, a)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := f.cc.NewStream(ctx, chatDesc, chat)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		for range 30 {
			if err := s.SendMsg(wrapperspb.String(large)); err != nil {
				sent <- err
				return
			}
		}
		sent <- s.CloseSend()
	}()
	time.Sleep(50 * time.Millisecond) // until both windows are full
	n := 0
	for ; err == nil; n++ {
		err = s.RecvMsg(new(wrapperspb.StringValue))
	}
	if !errors.Is(err, io.EOF) || n != 41 {
		t.Errorf("got %v after %d messages; want the end after 40", err, n-1)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestStreamThatBreaksAfterAMessageIsNotOpenedAgain(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	for _, i := range []*instance{a, b} {
		i.streams(func(s grpc.ServerStream) error {
			if err := s.SendMsg(wrapperspb.String("one")); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "broke")
		})
	}
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{Repeatable: map[string]bool{watch: true}}, a, b)
	got, err := f.readAll(t.Context(), watchDesc, watch, "x")
	var failed *grpcmesh.Error
	if len(got) != 1 || !errors.As(err, &failed) || status.Code(err) != codes.Unavailable {
		t.Fatalf("got %q, %v; want one message and UNAVAILABLE", got, err)
	}
	if n := a.served.Load() + b.served.Load(); n != 1 {
		t.Errorf("opened %d times; want once", n)
	}
}

func TestRepeatableStreamIsOpenedAgainBeforeItsFirstMessage(t *testing.T) {
	t.Parallel()
	a, b := start(t, "a"), start(t, "b")
	a.streams(func(grpc.ServerStream) error { return status.Error(codes.Unavailable, "not now") })
	f := join(t, httpmesh.Config{}, grpcmesh.ClientConfig{Repeatable: map[string]bool{watch: true}}, a, b)
	for range 10 {
		if got, err := f.readAll(t.Context(), watchDesc, watch, "x"); err != nil || len(got) != 3 {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	f.set(a)
	if _, err := f.readAll(t.Context(), watchDesc, watch, "x"); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v; want UNAVAILABLE: there is no other", err)
	}
}

// spy is the default policy; it keeps the endpoint that it picked.
type spy struct {
	balancer.PeakEWMA
	picked atomic.Pointer[balancer.Endpoint]
}

func (s *spy) Pick(t balancer.Tier, q balancer.Request) *balancer.Endpoint {
	e := s.PeakEWMA.Pick(t, q)
	if e != nil {
		s.picked.Store(e)
	}
	return e
}

// load is that of the endpoint picked last, -1 before there is one.
func (s *spy) load() int {
	if e := s.picked.Load(); e != nil {
		return e.InFlight()
	}
	return -1
}

func TestStreamThatMovesNothingIsNoLoadAndIsNotHurried(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	moveOn := make(chan struct{})
	a.streams(func(s grpc.ServerStream) error {
		<-moveOn
		return s.SendMsg(wrapperspb.String("late"))
	})
	in := new(spy)
	f := join(t, httpmesh.Config{TryTimeout: 50 * time.Millisecond, Policy: in}, grpcmesh.ClientConfig{Repeatable: map[string]bool{watch: true}}, a)
	done := make(chan error, 1)
	go func() {
		got, err := f.readAll(t.Context(), watchDesc, watch, "x")
		if err == nil && (len(got) != 1 || got[0] != "late") {
			err = errors.New(strings.Join(got, " "))
		}
		done <- err
	}()
	eventually(t, "a load", func() bool { return in.load() == 1 })
	eventually(t, "no load at rest", func() bool { return in.load() == 0 })
	close(moveOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := in.load(); n != 0 {
		t.Errorf("%d in flight at the end; want none", n)
	}
	if a.served.Load() != 1 {
		t.Errorf("opened %d times; want once", a.served.Load())
	}
}

func TestStreamThatItsCallerLeavesIsNoLoadAnyMore(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	a.streams(func(s grpc.ServerStream) error { <-s.Context().Done(); return nil })
	in := new(spy)
	f := join(t, httpmesh.Config{Policy: in}, grpcmesh.ClientConfig{}, a)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := f.cc.NewStream(ctx, watchDesc, watch); err != nil {
		t.Fatal(err)
	}
	cancel() // and it is not looked at again
	eventually(t, "no load", func() bool { return in.load() == 0 })
}
