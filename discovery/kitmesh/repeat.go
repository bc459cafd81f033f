package kitmesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"time"

	"github.com/go-kit/kit/endpoint"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// Retry bounds the calls of an endpoint that asks through the mesh's client, as
// lb.Retry did: each is sent at most max times, and takes at most timeout, all of its
// tries together.
//
//	call := lb.Retry(3, time.Second, balancer)   // before
//	call = kitmesh.Retry(3, time.Second)(call)   // after
//
// A max of less than 1 counts as 1, which is no second try. A timeout of 0 or less is
// none but the context's. Without Retry it is the mesh's HTTP.MaxRetries that holds.
// Unlike lb.Retry it does not say what is tried again: the method does, and
// Repeatable.
func Retry(max int, timeout time.Duration) endpoint.Middleware {
	return func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(ctx context.Context, request any) (any, error) {
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			return next(httpmesh.WithMaxTries(ctx, max), request)
		}
	}
}

// maxRepeatable is the largest body that Repeatable keeps.
const maxRepeatable = 1 << 20

// Repeatable declares that the requests of a client may be done twice, whatever
// their method:
//
//	kithttp.NewClient("POST", u, enc, dec, kithttp.SetClient(mesh.Client()), kithttp.ClientBefore(kitmesh.Repeatable))
//
// Without it that holds for GET, HEAD, OPTIONS and TRACE, and nothing else is sent
// again once an instance may have it. It gives the request an Idempotency-Key of its
// own, which a server may heed, unless it has one, and keeps the body, since the
// encoders of go-kit make one that can be read once only. A body of more than 1 MiB
// is not kept: such a request is sent again only if nothing of it was read.
func Repeatable(ctx context.Context, r *http.Request) context.Context {
	if r.Header.Get("Idempotency-Key") == "" {
		r.Header.Set("Idempotency-Key", rand.Text())
	}
	if r.Body == nil || r.Body == http.NoBody || r.GetBody != nil {
		return ctx
	}
	kept, err := io.ReadAll(io.LimitReader(r.Body, maxRepeatable+1))
	if err != nil || len(kept) > maxRepeatable {
		r.Body = &both{Reader: io.MultiReader(bytes.NewReader(kept), r.Body), Closer: r.Body}
		return ctx
	}
	_ = r.Body.Close()
	r.ContentLength = int64(len(kept))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(kept)), nil }
	r.Body, _ = r.GetBody()
	return ctx
}

// both reads what was read before and what is left.
type both struct {
	io.Reader
	io.Closer
}
