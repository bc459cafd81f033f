package app

import (
	"crypto/tls"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	rpcspans "github.com/rollcall-mesh/rollcall/observability/tracing/rpc"
	"github.com/rollcall-mesh/rollcall/services/internal/overload"
	"github.com/rollcall-mesh/rollcall/services/internal/rpc"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// newRPCs returns the server of the gRPC port, with what the settings bound by
// HTTP bounded here too. serving is nil for plain text.
func (s *service) newRPCs(parts Parts, limits *overload.Limiter, serving *tls.Config) (*grpcmesh.Server, error) {
	cfg := grpcmesh.ServerConfig{
		Service:    s.spec.Name,
		Ready:      s.checks.Ready,
		Reflection: s.settings.GRPCReflection == "on",
		Trace:      rpcspans.Server(s.spans.Tracing(), rpc.Observe(s.log, s.metrics.RPCServer())),
		Log:        s.log,
	}
	if limits != nil {
		cfg.Limit = rpc.Limit(limits)
	}
	creds := insecure.NewCredentials()
	if serving != nil {
		creds = credentials.NewTLS(serving)
	}
	server, err := grpcmesh.NewServer(cfg,
		grpc.Creds(creds),
		grpc.ChainUnaryInterceptor(rpc.Errors(s.log)),
		grpc.MaxConcurrentStreams(uint32(s.settings.MaxStreams)), //nolint:gosec // 1 to 10000
		grpc.MaxHeaderListSize(web.MaxMaxHeaderBytes),
		grpc.MaxRecvMsgSize(overload.MaxBody),
	)
	if err != nil {
		return nil, err
	}
	parts.GRPC(server)
	return server, nil
}
