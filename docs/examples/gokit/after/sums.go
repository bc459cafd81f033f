package after

import (
	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/docs/examples/gokit/addsvc"
)

// Sums returns a client of addsvc. To add twice harms nobody.
func Sums(mesh *discovery.Mesh) (addsvc.Set, error) {
	return addsvc.NewHTTPClient("http://addsvc", kithttp.SetClient(mesh.Client()), kithttp.ClientBefore(kitmesh.Repeatable))
}
