package grpcmesh_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// BenchmarkCall compares a call with that of a plain client of grpc-go's with
// round_robin, over the same servers.
func BenchmarkCall(b *testing.B) {
	one, two := start(b, "a"), start(b, "b")
	invoke := func(cc *grpc.ClientConn, method string) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			in, out := wrapperspb.String("x"), new(wrapperspb.StringValue)
			for b.Loop() {
				if err := cc.Invoke(b.Context(), method, in, out); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	names := manual.NewBuilderWithScheme("bench")
	names.InitialState(resolver.State{Endpoints: []resolver.Endpoint{
		{Addresses: []resolver.Address{{Addr: one.lis.Addr().String()}}},
		{Addresses: []resolver.Address{{Addr: two.lis.Addr().String()}}},
	}})
	plain, err := grpc.NewClient("bench:///order", grpc.WithResolvers(names),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	f := join(b, httpmesh.Config{}, grpcmesh.ClientConfig{}, one, two)
	b.Run("plain", invoke(plain, do))
	b.Run("mesh", invoke(f.cc, do))
	b.Run("mesh with patience", invoke(f.cc, get))
}
