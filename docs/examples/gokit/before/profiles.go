package before

import (
	"io"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/lb"
	"github.com/go-kit/log"

	"github.com/rollcall-mesh/rollcall/docs/examples/gokit/profilesvc"
)

// Profiles returns a client of profilesvc.
func Profiles(client consul.Client, logger log.Logger) profilesvc.Service {
	instancer := consul.NewInstancer(client, logger, "profilesvc", nil, true)
	method := func(of func(profilesvc.Endpoints) endpoint.Endpoint) endpoint.Endpoint {
		factory := func(instance string) (endpoint.Endpoint, io.Closer, error) {
			endpoints, err := profilesvc.MakeClientEndpoints(instance)
			return of(endpoints), nil, err
		}
		endpointer := sd.NewEndpointer(instancer, factory, logger)
		balancer := lb.NewRoundRobin(endpointer)
		return lb.Retry(3, 500*time.Millisecond, balancer)
	}
	return profilesvc.Endpoints{
		Post:   method(func(e profilesvc.Endpoints) endpoint.Endpoint { return e.Post }),
		Get:    method(func(e profilesvc.Endpoints) endpoint.Endpoint { return e.Get }),
		Put:    method(func(e profilesvc.Endpoints) endpoint.Endpoint { return e.Put }),
		Delete: method(func(e profilesvc.Endpoints) endpoint.Endpoint { return e.Delete }),
	}
}
