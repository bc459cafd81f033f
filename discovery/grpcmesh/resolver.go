package grpcmesh

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// scheme of the targets: rollcall:///order.
const scheme = "rollcall"

// builder makes the resolver of one client; it is given to that client alone, by
// grpc.WithResolvers.
type builder struct{ client *client }

// Scheme is that of the targets.
func (builder) Scheme() string { return scheme }

// Build begins the following of the service, which waits for the first call.
func (b builder) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &follower{client: b.client, cc: cc, cancel: cancel}
	// Without an instance so far: it makes the balancer, which the calls need.
	if err := r.tell(nil); err != nil {
		cancel()
		return nil, err
	}
	r.loop.Go(func() { r.run(ctx) })
	return r, nil
}

// follower is the resolver: it hands each newer snapshot on when it comes, so that
// connections to instances that left do not wait for the next call.
type follower struct {
	client *client
	cc     resolver.ClientConn
	cancel context.CancelFunc
	loop   sync.WaitGroup
}

// ResolveNow does nothing: the source tells by itself.
func (*follower) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends the following.
func (r *follower) Close() {
	r.client.end()
	r.cancel()
	r.loop.Wait()
}

type attributeKey struct{}

// news is what the resolver gives the balancer.
type news struct {
	client   *client
	snapshot *catalog.Snapshot // nil: none so far
}

func (r *follower) tell(s *catalog.Snapshot) error {
	state := resolver.State{Attributes: attributes.New(attributeKey{}, news{r.client, s})}
	if s != nil {
		for i := range s.All() {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: i.Addr()}}})
		}
	}
	return r.cc.UpdateState(state)
}

// run follows the service from a call on until the source follows it no more, and
// again from the next call.
func (r *follower) run(ctx context.Context) {
	for {
		select {
		case <-r.client.wake:
		case <-ctx.Done():
			return
		}
		r.client.following.Store(true)
		s := r.client.using.Load()
		for s != nil {
			if r.tell(s) != nil {
				r.client.use(s, time.Now()) // gRPC is closing, or has no balancer
			}
			select {
			case <-s.Superseded():
				s = s.Newest()
			case <-ctx.Done():
				return
			}
		}
		r.client.release()
		r.client.following.Store(false)
	}
}
