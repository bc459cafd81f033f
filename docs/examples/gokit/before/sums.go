package before

import (
	"io"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/lb"
	"github.com/go-kit/log"

	"github.com/rollcall-mesh/rollcall/docs/examples/gokit/addsvc"
)

// Sums returns a client of addsvc.
func Sums(client consul.Client, logger log.Logger) addsvc.Set {
	instancer := consul.NewInstancer(client, logger, "addsvc", nil, true)
	method := func(of func(addsvc.Set) endpoint.Endpoint) endpoint.Endpoint {
		factory := func(instance string) (endpoint.Endpoint, io.Closer, error) {
			set, err := addsvc.NewHTTPClient(instance)
			return of(set), nil, err
		}
		return lb.Retry(3, 500*time.Millisecond, lb.NewRoundRobin(sd.NewEndpointer(instancer, factory, logger)))
	}
	return addsvc.Set{
		SumEndpoint:    method(func(s addsvc.Set) endpoint.Endpoint { return s.SumEndpoint }),
		ConcatEndpoint: method(func(s addsvc.Set) endpoint.Endpoint { return s.ConcatEndpoint }),
	}
}
