// Package rpc is what the services' gRPC transports share, as rest is for HTTP:
// errors as statuses ([Errors]), requests that are checked ([ID], [Page], [Once])
// and answers that were kept ([Kept]), and what is told of each call ([Observe]).
// It has no state; what it returns is safe for any number of goroutines.
package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/paging"
	"github.com/rollcall-mesh/rollcall/services/internal/rest"
)

// codesOf are the codes of the statuses of problems, the rest is INTERNAL. 507 is
// RESOURCE_EXHAUSTED ("perhaps the entire file system is out of space", says
// gRPC's own list) without the reason of an overload.
var codesOf = map[int]codes.Code{
	http.StatusBadRequest:          codes.InvalidArgument,
	http.StatusNotFound:            codes.NotFound,
	http.StatusUnprocessableEntity: codes.InvalidArgument,
	http.StatusServiceUnavailable:  codes.Unavailable,
	http.StatusGatewayTimeout:      codes.DeadlineExceeded,
	http.StatusInsufficientStorage: codes.ResourceExhausted,
}

// Errors returns an interceptor that makes a status of the error of a handler: of
// the same problem that it is by HTTP, with its detail, and its X- headers as
// trailers. Errors that are our fault are logged. A status stays what it is.
func Errors(log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		answer, err := next(ctx, request)
		if err == nil {
			return answer, nil
		}
		// Not one that is wrapped: that is another service's answer to us.
		if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
			return nil, err
		}
		return nil, statusOf(ctx, rest.Report(ctx, log, err))
	}
}

func statusOf(ctx context.Context, p *problem.Problem) error {
	for name, values := range p.Header {
		if strings.HasPrefix(name, "X-") {
			trail(ctx, name, values...)
		}
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if p.Header.Get(httpmesh.ReasonHeader) == httpmesh.ReasonDownstream {
		return grpcmesh.Downstream("%s", p.Detail)
	}
	code, ok := codesOf[p.Status]
	if !ok {
		code = codes.Internal
	}
	return status.Error(code, p.Detail)
}

// Set puts a pair into the header of the answer.
func Set(ctx context.Context, key, value string) {
	// It fails only after the header was sent, or without a call.
	_ = grpc.SetHeader(ctx, metadata.Pairs(strings.ToLower(key), value))
}

func trail(ctx context.Context, key string, values ...string) {
	for _, value := range values {
		_ = grpc.SetTrailer(ctx, metadata.Pairs(strings.ToLower(key), value)) // as above
	}
}

// ID is a problem unless the field is an ID.
func ID(name string, id int64) error {
	if id < 1 {
		return problem.New(http.StatusBadRequest, "the field %s is %d; want an integer from 1", name, id)
	}
	return nil
}

// Page returns the page that is asked for.
func Page(after int64, limit int32) (paging.Page, error) {
	switch {
	case after < 0:
		return paging.Page{}, problem.New(http.StatusBadRequest, "the field after is %d; want an integer from 1, or 0 for the beginning", after)
	case limit < 0 || limit > paging.Most:
		return paging.Page{}, problem.New(http.StatusBadRequest, "the field limit is %d; want an integer from 1 to %d, or 0 for that", limit, paging.Most)
	case limit == 0:
		limit = paging.Most
	}
	return paging.Page{After: after, Limit: int(limit)}, nil
}

// Once says which request one is, by the metadata idempotency-key. Its scope is the
// method: a key that came by HTTP is another one.
func Once(ctx context.Context, request proto.Message) (idempotency.Request, error) {
	in, _ := metadata.FromIncomingContext(ctx)
	keys := in.Get(idempotency.Header)
	if len(keys) == 0 {
		return idempotency.Request{}, nil
	}
	method, _ := grpc.Method(ctx)
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return idempotency.Request{}, fmt.Errorf("encode the request: %w", err)
	}
	return idempotency.Of(keys, method, body)
}

// Kept reads a kept answer, JSON, into v. One that was given before is marked as
// such in the header, and counted by replayed.
func Kept(ctx context.Context, answer idempotency.Answer, v any, replayed func()) error {
	if answer.Replayed {
		Set(ctx, idempotency.ReplayedHeader, "true")
		replayed()
	}
	if err := json.Unmarshal(answer.Body, v); err != nil {
		return fmt.Errorf("read the answer that was kept: %w", err)
	}
	return nil
}
