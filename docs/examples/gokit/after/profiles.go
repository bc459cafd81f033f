package after

import (
	"context"
	"net/http"
	"time"

	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/docs/examples/gokit/profilesvc"
)

// Profiles returns a client of profilesvc.
func Profiles(mesh *discovery.Mesh) (profilesvc.Service, error) {
	endpoints, err := profilesvc.MakeClientEndpoints("http://profilesvc", kithttp.SetClient(mesh.Client()), kithttp.ClientBefore(declare))
	if err != nil {
		return nil, err
	}
	limit := kitmesh.Retry(3, 5*time.Second)
	return profilesvc.Endpoints{
		Post:   limit(endpoints.Post),
		Get:    limit(endpoints.Get),
		Put:    limit(endpoints.Put),
		Delete: limit(endpoints.Delete),
	}, nil
}

// declare says that a profile may be replaced twice, beside what GET says by itself.
func declare(ctx context.Context, r *http.Request) context.Context {
	if r.Method == http.MethodPut {
		return kitmesh.Repeatable(ctx, r)
	}
	return ctx
}
