// Package rpctest runs a service's gRPC transport inside a test.
package rpctest

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/services/internal/rpc"
)

// Serve serves what register registers until the test's end, as a service's main
// does, and returns a plain connection to it.
func Serve(t *testing.T, service string, register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	server, err := grpcmesh.NewServer(grpcmesh.ServerConfig{Service: service, Log: log}, grpc.ChainUnaryInterceptor(rpc.Errors(log)))
	if err != nil {
		t.Fatal(err)
	}
	register(server)
	l := bufconn.Listen(64 << 10)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///"+service, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return conn
}
