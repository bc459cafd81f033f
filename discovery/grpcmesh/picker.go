package grpcmesh

import (
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// policyName is the balancer's in gRPC's registry, which is global; what it balances
// comes with the resolver's attributes.
const policyName = "rollcall"

func init() { balancer.Register(policy{}) } // gRPC finds policies by name, and wants them registered in an init

type policy struct{}

// Name is the policy's.
func (policy) Name() string { return policyName }

// Build makes the balancer of one ClientConn.
func (policy) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &connections{cc: cc}
}

// connections is gRPC's balancer of one client: it hands on what the resolver says.
// The choice is made for each try, where it is known what was tried before.
type connections struct {
	cc     balancer.ClientConn
	client *client
}

// UpdateClientConnState takes the resolver's news.
func (b *connections) UpdateClientConnState(s balancer.ClientConnState) error {
	n, ok := s.ResolverState.Attributes.Value(attributeKey{}).(news)
	if !ok {
		return balancer.ErrBadResolverState // another resolver's
	}
	if b.client == nil {
		b.client = n.client
		n.client.conn.Store(&attached{b.cc})
		n.client.changed()
	}
	if n.snapshot != nil {
		n.client.use(n.snapshot, time.Now())
	}
	return nil
}

// ResolverError is for other resolvers than ours, which tells of none.
func (*connections) ResolverError(error) {}

// UpdateSubConnState is not called: each SubConn has a listener.
func (*connections) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle does nothing: connections are made for tries.
func (*connections) ExitIdle() {}

// Close lets the connections go, which gRPC closes.
func (b *connections) Close() {
	if b.client != nil {
		b.client.end()
		b.client.release()
	}
}

type attemptKey struct{}

// picker gives each try the connection that it has.
type picker struct{}

// errMoved ends a try that gRPC would repeat by itself, for nothing of it was
// served: where it is tried again is decided by us, and counted.
var errMoved = status.Error(codes.Unavailable, "the call was not served: its connection is closing, or it was refused")

// Pick returns the try's connection. Asked again, it has been refused, or not sent.
func (*picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	a, ok := info.Ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return balancer.PickResult{}, status.Error(codes.Internal, "grpcmesh: a call without its interceptors")
	}
	line := a.pick()
	if line == nil {
		return balancer.PickResult{}, errMoved
	}
	return balancer.PickResult{SubConn: line.sub, Done: a.sent}, nil
}
