// Package grpcmesh lets gRPC clients and servers join the mesh.
//
//	conn, err := grpcmesh.NewClient(mesh, "order", grpcmesh.ClientConfig{})
//	orders := orderv1.NewOrderServiceClient(conn)
//
// # Clients
//
// [NewClient] returns a *grpc.ClientConn to the instances of a service that speak
// gRPC. It chooses, judges and tries as httpmesh does, with the mesh's settings for
// it, one table of outcomes (package outcome) and one kind of health.
//
// A unary call that was not served is tried elsewhere whatever its method: the dial
// failed, nothing was sent, the server refused the stream, shed the call before any
// work (RESOURCE_EXHAUSTED with grpc-retry-pushback-ms or a RetryInfo), or is another
// service's (UNAVAILABLE with an ErrorInfo of WRONG_SERVICE). One that may be done twice, by the proto's
// idempotency_level, ClientConfig.Repeatable or an idempotency-key in its metadata, is
// tried again after UNAVAILABLE, a broken connection and silence as well. A stream is
// opened again before its first message, and never for its silence. grpc-go's own retry
// is off, but what it repeats by itself counts as a try.
//
// A call that fails for the instances or the way to them gives an [*Error] with the
// report of every try; what a service answers by itself comes as it is.
//
// A dead instance is noticed by the kernel's reset, by patience
// (httpmesh.Config.TryTimeout), by TCP_USER_TIMEOUT on Linux, and by the catalog; not by
// keepalive, which servers punish. Connections are renewed by age and closed with their
// last call. A goroutine for each client follows its service; it ends with Close.
package grpcmesh
