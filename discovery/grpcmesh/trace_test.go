package grpcmesh_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// story is what a trace was told, in order.
type story struct {
	mu   sync.Mutex
	told []string
}

func (s *story) tell(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, fmt.Sprintf(format, args...))
}

// take returns what was told since it was asked last.
func (s *story) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := s.told
	s.told = nil
	return told
}

type tryKey struct{}

func (s *story) trace() *httpmesh.Trace {
	return &httpmesh.Trace{
		Begin: func(ctx context.Context, service, method string) context.Context {
			s.tell("begin %s %s", method, service)
			return metadata.AppendToOutgoingContext(ctx, "x-request", "begun")
		},
		Try: func(ctx context.Context, t httpmesh.TryStart) context.Context {
			s.tell("try %d after %q", t.Number, t.After.String())
			t.Set("X-Try", fmt.Sprint(t.Number))
			return context.WithValue(ctx, tryKey{}, t.Number)
		},
		Tried: func(ctx context.Context, t httpmesh.Try) {
			s.tell("try %v is %v", ctx.Value(tryKey{}), t.Outcome)
		},
		Done: func(_ context.Context, r *httpmesh.Report) { s.tell("done, %v", r.Outcome) },
	}
}

func TestTraceIsToldOfEachTryOfACallAndAddsToItsMetadata(t *testing.T) {
	t.Parallel()
	s := new(story)
	var served atomic.Int64
	// serve refuses the first of two.
	serve := func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		s.tell("served with %s %s", strings.Join(md["x-request"], ","), strings.Join(md["x-try"], ","))
		if served.Add(1)%2 == 1 {
			return status.Error(codes.Unavailable, "not now")
		}
		return nil
	}
	var instances []*instance
	for _, id := range []string{"a", "b"} {
		i := start(t, id)
		i.answers(func(ctx context.Context, said string) (string, error) { return said, serve(ctx) })
		i.streams(func(stream grpc.ServerStream) error {
			if err := serve(stream.Context()); err != nil {
				return err
			}
			return i.echo(stream)
		})
		instances = append(instances, i)
	}
	f := &fleet{t: t}
	f.set(instances...)
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: &f.source, Trace: &discovery.Trace{HTTP: s.trace()}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	if f.cc, err = grpcmesh.NewClient(mesh, "order", grpcmesh.ClientConfig{}); err != nil {
		t.Fatal(err)
	}
	defer f.cc.Close()

	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-try", "the caller's")
	if _, _, err := f.call(ctx, get, "hello"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"begin " + get + " order",
		`try 1 after ""`, "served with begun 1", "try 1 is gateway",
		`try 2 after "gateway"`, "served with begun 2", "try 2 is ok",
		"done, ok",
	}
	if got := s.take(); !slices.Equal(got, want) {
		t.Errorf("told of a unary call: got\n%q; want\n%q", got, want)
	}
	if _, err := f.readAll(withKey(ctx), watchDesc, watch, "hello"); err != nil {
		t.Fatal(err)
	}
	want = []string{
		"begin " + watch + " order",
		`try 1 after ""`, "served with begun 1", "try 1 is gateway",
		`try 2 after "gateway"`, "served with begun 2",
		"done, ok", // with the first message
		"try 2 is ok",
	}
	if got := s.take(); !slices.Equal(got, want) {
		t.Errorf("told of a stream: got\n%q; want\n%q", got, want)
	}
}
