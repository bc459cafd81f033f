package grpcmesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// idempotencyKey says that its sender wants a call done once, however often it
// arrives.
const idempotencyKey = "idempotency-key"

// call is one call over all of its tries. The Call's lock guards the report.
type call struct {
	tries.Call[*attempt]
	client  *client
	method  string
	start   time.Time
	report  *httpmesh.Report
	patient bool // a silence has it tried elsewhere
	told    bool // the report was
	opts    []grpc.CallOption
	onEnd   []func(error) // the caller's grpc.OnFinish

	// Of a unary call.
	req, reply any
	kind       protoreflect.MessageType // the reply's, taken before a try fills it; nil: it is no proto
	cc         *grpc.ClientConn
	invoker    grpc.UnaryInvoker
	// Of a stream.
	desc     *grpc.StreamDesc
	streamer grpc.Streamer
	stream   *stream
}

func (c *client) call(ctx context.Context, method string, cc *grpc.ClientConn, opts []grpc.CallOption) *call {
	if begin := c.settings.Trace.Begin; begin != nil {
		ctx = begin(ctx, c.service, method)
	}
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	md[ServiceKey] = []string{c.service}
	x := &call{client: c, method: method, cc: cc, start: time.Now(), report: &httpmesh.Report{Service: c.service, Method: method}}
	x.Sender, x.Rules, x.Ctx = x, &c.rules, metadata.NewOutgoingContext(ctx, md)
	x.Limit, _ = ctx.Deadline()
	level := c.idempotency(method)
	if level != descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
		x.Group = outcome.Unsafe
	}
	x.Repeatable = level != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN || len(md[idempotencyKey]) > 0
	x.opts, x.onEnd = once(opts)
	return x
}

// once takes out of the options what is to be called once for all tries.
func once(opts []grpc.CallOption) (rest []grpc.CallOption, onEnd []func(error)) {
	for n, o := range opts {
		if finish, ok := o.(grpc.OnFinishCallOption); ok {
			if onEnd == nil {
				rest = append(rest, opts[:n]...)
			}
			onEnd = append(onEnd, finish.OnFinish)
		} else if onEnd != nil {
			rest = append(rest, o)
		}
	}
	if onEnd == nil {
		return opts, nil
	}
	return rest, onEnd
}

// idempotency returns what the setting, or else the proto, says of a method.
func (c *client) idempotency(method string) descriptorpb.MethodOptions_IdempotencyLevel {
	if yes, ok := c.repeatable[method]; ok {
		if !yes {
			return descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
		}
		return cmp.Or(described(method), descriptorpb.MethodOptions_IDEMPOTENT)
	}
	return described(method)
}

var levels sync.Map // full method name to what its proto says; the program's own protos, so bounded

// described returns what the proto says, if it is linked into the program.
func described(method string) descriptorpb.MethodOptions_IdempotencyLevel {
	if level, ok := levels.Load(method); ok {
		return level.(descriptorpb.MethodOptions_IdempotencyLevel)
	}
	name := []byte(method)
	if len(name) == 0 {
		return descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
	}
	for n := range name {
		if name[n] == '/' {
			name[n] = '.'
		}
	}
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name[1:]))
	if err != nil {
		return descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
	}
	options, _ := found.Options().(*descriptorpb.MethodOptions)
	level := options.GetIdempotencyLevel()
	levels.Store(method, level)
	return level
}

// Begin prepares the next try. An error says that there is none.
func (x *call) Begin(beside bool) (*attempt, outcome.Code, error) {
	c := x.client
	if c.isClosed() {
		return nil, outcome.Closed, fmt.Errorf("call %s: %w", c.service, catalog.ErrClosed)
	}
	c.source.KeepAlive(c.service)
	s, err := c.source.Latest(x.Ctx, c.service)
	if err != nil {
		return nil, x.SourceCode(err), err
	}
	now := time.Now()
	c.use(s, now)
	if !c.following.Load() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	x.Lock()
	defer x.Unlock()
	x.report.Proven, _ = s.Freshness()
	x.report.Counts = c.balancer.Counts(now)
	lease, code, err := x.Pick(c.balancer, now)
	if err != nil {
		return nil, code, c.misfit(x.Ctx, err)
	}
	x.report.Tries = append(x.report.Tries, httpmesh.Try{Instance: lease.Endpoint().Instance()})
	a := &attempt{
		Try:  tries.Try{Lease: lease, Balancer: c.balancer, Start: now},
		call: x, link: c.link(lease.Endpoint()), index: len(x.report.Tries) - 1,
	}
	a.ctx, a.Cancel = context.WithCancelCause(context.WithValue(x.Ctx, attemptKey{}, a))
	x.Began(a, c.ledger, beside)
	return a, outcome.None, nil
}

// misfit adds to an error of the pick how many instances are not called for TLS that
// they speak, or do not.
func (c *client) misfit(ctx context.Context, err error) error {
	all, allErr := c.all.Latest(ctx, c.service)
	if allErr != nil || !errors.Is(err, catalog.ErrNoInstance) {
		return err
	}
	n := 0
	for i := range all.All() {
		if i.TLS() != c.tls {
			n++
		}
	}
	switch {
	case n == 0:
		return err
	case c.tls:
		return fmt.Errorf("%w; %d speak plain text, and the client has Credentials", err, n)
	}
	return fmt.Errorf("%w; %d speak TLS, and the client has no Credentials", err, n)
}

// Left and Again: a message can always be sent once more.
func (x *call) Left() bool { return true }

// Again is told that it will be.
func (x *call) Again() bool { return true }

// note completes the report's line of a try.
func (x *call) note(a *attempt, t httpmesh.Try) {
	x.Lock()
	defer x.Unlock()
	if !x.told { // a report that was told of does not change
		x.report.Tries[a.index] = t
	}
}

// use notes whose answer the caller gets.
func (x *call) use(a *attempt) {
	x.Lock()
	defer x.Unlock()
	if !x.told {
		x.report.Tries[a.index].Used = true
	}
}

// unary is the interceptor of unary calls.
func (c *client) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	x := c.call(ctx, method, cc, opts)
	x.req, x.reply, x.invoker = req, reply, invoker
	// What was refused before it was served is offered again whatever its size: the
	// message is there anyway.
	if x.opts == nil {
		x.opts = onlyKeepAll
	} else {
		x.opts = append(slices.Clip(x.opts), keepAll)
	}
	x.patient = c.settings.TryTimeout > 0 && x.Repeatable && copies(reply)
	if m, ok := reply.(proto.Message); ok && x.patient {
		x.kind = m.ProtoReflect().Type()
	}
	a, won, code, err := x.Run()
	return x.result(a, won, code, err)
}

var (
	keepAll     = grpc.MaxRetryRPCBufferSize(1<<31 - 1)
	onlyKeepAll = []grpc.CallOption{keepAll}
)

// send sends a try by gRPC. One that runs beside another has a reply of its own, and
// tells the caller's options nothing until it is used.
func (x *call) send(a *attempt) error {
	if x.streamer != nil {
		return x.open(a)
	}
	reply, opts := x.reply, x.opts
	if a.Beside {
		reply = x.fresh()
		opts, a.adopt = aside(opts)
	}
	a.reply = reply
	return x.invoker(a.ctx, x.method, x.req, reply, x.cc, opts...)
}

// copies reports whether fresh and move can do with a reply.
func copies(reply any) bool {
	v := reflect.ValueOf(reply)
	return v.Kind() == reflect.Pointer && !v.IsNil()
}

// fresh returns an empty reply. It does not look into the caller's, which another try
// may be filling.
func (x *call) fresh() any {
	if x.kind != nil {
		return x.kind.New().Interface()
	}
	return reflect.New(reflect.TypeOf(x.reply).Elem()).Interface()
}

func move(to, from any) {
	if m, ok := to.(proto.Message); ok {
		proto.Reset(m)
		proto.Merge(m, from.(proto.Message))
		return
	}
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from).Elem())
}

// aside returns the options with places of their own for what a call tells, and what
// hands that on.
func aside(opts []grpc.CallOption) (own []grpc.CallOption, adopt func()) {
	var tell []func()
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			at := new(metadata.MD)
			own = append(own, grpc.Header(at))
			tell = append(tell, func() { *o.HeaderAddr = *at })
		case grpc.TrailerCallOption:
			at := new(metadata.MD)
			own = append(own, grpc.Trailer(at))
			tell = append(tell, func() { *o.TrailerAddr = *at })
		case grpc.PeerCallOption:
			at := new(peer.Peer)
			own = append(own, grpc.Peer(at))
			tell = append(tell, func() { *o.PeerAddr = *at })
		default:
			own = append(own, o)
		}
	}
	return own, func() {
		for _, f := range tell {
			f()
		}
	}
}

// result makes the call's end of that of its tries.
func (x *call) result(a *attempt, won bool, code outcome.Code, err error) error {
	switch {
	case a == nil:
		return x.fail(nil, code, err)
	case err != nil && !won: // a try before, and then no instance or no source
		return x.fail(nil, code, fmt.Errorf("%w; the try before: %w", err, a.err))
	case a.Code == outcome.Closed && !errors.Is(a.err, catalog.ErrClosed):
		return x.fail(nil, a.Code, fmt.Errorf("%w: %w", catalog.ErrClosed, a.err))
	case a.Code != outcome.OK:
		return x.fail(a, a.Code, a.err)
	}
	if a.Beside {
		a.adopt()
		if a.err == nil {
			move(x.reply, a.reply)
		}
	}
	if x.streamer == nil { // a stream tells with its first message, or at its end
		x.use(a)
		x.tell(outcome.OK)
		x.end(a.err)
	}
	return a.err
}

// tell finishes the report, once.
func (x *call) tell(code outcome.Code) {
	x.Lock()
	told := x.told
	x.told = true
	x.Unlock()
	if told {
		return
	}
	x.report.Outcome = code
	x.report.OverBudget = x.OverBudget()
	x.report.Elapsed = time.Since(x.start)
	if r, ok := x.Ctx.Value(reportKey{}).(*httpmesh.Report); ok {
		*r = *x.report
	}
	if done := x.client.settings.Trace.Done; done != nil {
		done(x.Ctx, x.report)
	}
}

// end tells the caller's options that the call has ended, once.
func (x *call) end(err error) {
	x.Lock()
	tell := x.onEnd
	x.onEnd = nil
	x.Unlock()
	for _, f := range tell {
		f(err)
	}
}
