package grpcmesh

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// ServiceKey is the metadata that names the service which a call is meant for;
// HTTP's httpmesh.ServiceHeader, in gRPC's spelling.
const ServiceKey = "rollcall-service"

// comeBack is how long a client should stay away from an instance that sheds; as
// HTTP's Retry-After.
const comeBack = time.Second

// Overloaded returns the status of a call that was shed before any work was
// done: RESOURCE_EXHAUSTED, which asks to come back in a second (RetryInfo, and
// the trailer grpc-retry-pushback-ms). A client of the mesh tries another
// instance at once, whatever the method, and takes it for load, not for a fault.
// ctx is that of the call.
func Overloaded(ctx context.Context) error {
	// It fails only after the call has ended.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(grpcwire.PushbackKey, strconv.FormatInt(comeBack.Milliseconds(), 10)))
	return detailed(codes.ResourceExhausted, grpcwire.Overload,
		"too much is being worked on; another instance may have time, or this one in a second")
}

// Downstream returns the status UNAVAILABLE of a call that needed another
// service, which was tried as often as it could be: a client of the mesh does not
// try again (tries × tries), nor hold it against the instance.
func Downstream(format string, args ...any) error {
	return detailed(codes.Unavailable, grpcwire.Downstream, format, args...)
}

func detailed(code codes.Code, reason, format string, args ...any) error {
	plain := status.Newf(code, format, args...)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: grpcwire.Domain}}
	if code == codes.ResourceExhausted {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(comeBack)})
	}
	whole, err := plain.WithDetails(details...)
	if err != nil {
		return plain.Err() // two messages of ours: they can be encoded
	}
	return whole.Err()
}
