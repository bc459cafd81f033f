package grpcmesh_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

func TestMain(m *testing.M) {
	describe()
	goleak.VerifyTestMain(m)
}

// The methods of the service under test: its proto says of Get that it has no side
// effects, of Put that it is idempotent, of Do nothing.
const (
	get   = "/rollcall.test.Orders/Get"
	put   = "/rollcall.test.Orders/Put"
	do    = "/rollcall.test.Orders/Do"
	watch = "/rollcall.test.Orders/Watch"
	chat  = "/rollcall.test.Orders/Chat"
)

// describe links the service's proto into the program, as generated code does.
func describe() {
	method := func(name string, level descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodDescriptorProto {
		const value = ".google.protobuf.StringValue"
		m := &descriptorpb.MethodDescriptorProto{Name: new(name), InputType: new(value), OutputType: new(value)}
		if level != 0 {
			m.Options = &descriptorpb.MethodOptions{IdempotencyLevel: &level}
		}
		return m
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("rollcall/test/orders.proto"), Package: new("rollcall.test"), Syntax: new("proto3"),
		Dependency: []string{wrapperspb.File_google_protobuf_wrappers_proto.Path()},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Orders"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Get", descriptorpb.MethodOptions_NO_SIDE_EFFECTS),
			method("Put", descriptorpb.MethodOptions_IDEMPOTENT),
			method("Do", 0),
		}}},
	}, protoregistry.GlobalFiles)
	if err == nil {
		err = protoregistry.GlobalFiles.RegisterFile(file)
	}
	if err != nil {
		panic(err)
	}
}

// instance is a real gRPC server on loopback.
type instance struct {
	id     string
	server *grpc.Server
	lis    *listener
	served atomic.Int64 // calls that came to the handler
	// answer replaces the echo, if it is set.
	answer atomic.Pointer[func(ctx context.Context, said string) (string, error)]
	stream atomic.Pointer[func(s grpc.ServerStream) error]
}

func start(t testing.TB, id string, options ...grpc.ServerOption) *instance {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, id, lis, options...)
}

func startOn(t testing.TB, id string, lis net.Listener, options ...grpc.ServerOption) *instance {
	t.Helper()
	i := &instance{id: id, lis: &listener{Listener: lis, closed: make(chan struct{})}, server: grpc.NewServer(options...)}
	unary := func(method string) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: method, Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			i.served.Add(1)
			if answer := i.answer.Load(); answer != nil {
				out, err := (*answer)(ctx, in.GetValue())
				if err != nil {
					return nil, err
				}
				return wrapperspb.String(out), nil
			}
			return wrapperspb.String(i.id + ":" + in.GetValue()), nil
		}}
	}
	stream := func(name string, client bool) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: name, ServerStreams: true, ClientStreams: client, Handler: func(_ any, s grpc.ServerStream) error {
			i.served.Add(1)
			if f := i.stream.Load(); f != nil {
				return (*f)(s)
			}
			return i.echo(s)
		}}
	}
	i.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "rollcall.test.Orders", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{unary("Get"), unary("Put"), unary("Do")},
		Streams: []grpc.StreamDesc{stream("Watch", false), stream("Chat", true)},
	}, i)
	var serving sync.WaitGroup
	serving.Go(func() { _ = i.server.Serve(i.lis) })
	t.Cleanup(func() { i.server.Stop(); serving.Wait() })
	return i
}

// echo answers each message with three of the instance's name.
func (i *instance) echo(s grpc.ServerStream) error {
	for {
		in := new(wrapperspb.StringValue)
		if err := s.RecvMsg(in); err != nil {
			return nil //nolint:nilerr // the caller has sent all of it
		}
		for n := range 3 {
			if err := s.SendMsg(wrapperspb.String(fmt.Sprintf("%s:%s:%d", i.id, in.GetValue(), n))); err != nil {
				return err
			}
		}
	}
}

func (i *instance) entry() catalog.Instance {
	host, port, _ := net.SplitHostPort(i.lis.Addr().String())
	number, _ := strconv.Atoi(port)
	return catalog.Instance{ID: i.id, Host: host, Port: number, Tags: []string{catalog.GRPC}}
}

// pause has the server say nothing more and hear nothing: its kernel takes what comes.
func (i *instance) pause() { i.lis.paused.Store(true) }

func (i *instance) answers(f func(ctx context.Context, said string) (string, error)) {
	i.answer.Store(&f)
}

// listener counts its connections, and can hold their reading up.
type listener struct {
	net.Listener
	paused   atomic.Bool
	accepted atomic.Int64
	once     sync.Once
	closed   chan struct{}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.accepted.Add(1)
	if l.paused.Load() { // the kernel takes it, and no more
		<-l.closed
		_ = c.Close()
		return nil, net.ErrClosed
	}
	return &held{Conn: c, by: l, closed: make(chan struct{})}, nil
}

// held is a connection whose reading stops while its listener is paused.
type held struct {
	net.Conn
	by     *listener
	once   sync.Once
	closed chan struct{}
}

func (c *held) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.by.paused.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *held) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// fleet is a mesh over instances that a test sets.
type fleet struct {
	t      testing.TB
	source catalog.Fixed
	mesh   *discovery.Mesh
	cc     *grpc.ClientConn
}

func join(t testing.TB, http httpmesh.Config, cfg grpcmesh.ClientConfig, instances ...*instance) *fleet {
	t.Helper()
	f := &fleet{t: t}
	f.set(instances...)
	var err error
	if f.mesh, err = discovery.Open(t.Context(), discovery.Config{Source: &f.source, HTTP: http}); err != nil {
		t.Fatal(err)
	}
	if f.cc, err = grpcmesh.NewClient(f.mesh, "order", cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.cc.Close(); err != nil {
			t.Error(err)
		}
		if err := f.mesh.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fleet) set(instances ...*instance) {
	f.t.Helper()
	entries := make([]catalog.Instance, 0, len(instances))
	for _, i := range instances {
		entries = append(entries, i.entry())
	}
	if err := f.source.Set("order", entries...); err != nil {
		f.t.Fatal(err)
	}
}

// call makes a unary call and returns the answer.
func (f *fleet) call(ctx context.Context, method, say string, opts ...grpc.CallOption) (string, *httpmesh.Report, error) {
	report := new(httpmesh.Report)
	out := new(wrapperspb.StringValue)
	ctx, cancel := context.WithTimeout(grpcmesh.WithReport(ctx, report), 10*time.Second)
	defer cancel()
	err := f.cc.Invoke(ctx, method, wrapperspb.String(say), out, opts...)
	return out.GetValue(), report, err
}

// must makes calls that must not fail.
func (f *fleet) must(n int, method string) (tries int) {
	f.t.Helper()
	for c := range n {
		_, report, err := f.call(f.t.Context(), method, strconv.Itoa(c))
		if err != nil {
			f.t.Fatalf("call %d: %v (%+v)", c, err, report.Tries)
		}
		tries += len(report.Tries)
	}
	return tries
}

// withKey is a context whose calls may be done twice.
func withKey(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "idempotency-key", "1")
}
