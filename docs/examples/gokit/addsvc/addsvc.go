// Package addsvc is a go-kit service in the shape of go-kit's own example of that
// name: it adds numbers and joins strings, both by POST. It knows nothing of
// discovery.
package addsvc

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-kit/kit/endpoint"
	kithttp "github.com/go-kit/kit/transport/http"
)

// Set is the service, made of endpoints: a server's, or a client's.
type Set struct{ SumEndpoint, ConcatEndpoint endpoint.Endpoint }

type (
	sumRequest    struct{ A, B int }
	concatRequest struct{ A, B string }
	sumAnswer     struct{ V int }
	concatAnswer  struct{ V string }
)

// Sum returns the sum of two numbers.
func (s Set) Sum(ctx context.Context, a, b int) (int, error) {
	response, err := s.SumEndpoint(ctx, sumRequest{a, b})
	if err != nil {
		return 0, err
	}
	return response.(sumAnswer).V, nil
}

// Concat joins two strings.
func (s Set) Concat(ctx context.Context, a, b string) (string, error) {
	response, err := s.ConcatEndpoint(ctx, concatRequest{a, b})
	if err != nil {
		return "", err
	}
	return response.(concatAnswer).V, nil
}

// MakeHandler returns the service over HTTP.
func MakeHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("POST /sum", kithttp.NewServer(func(_ context.Context, request any) (any, error) {
		r := request.(sumRequest)
		return sumAnswer{r.A + r.B}, nil
	}, decodeRequest[sumRequest], kithttp.EncodeJSONResponse))
	mux.Handle("POST /concat", kithttp.NewServer(func(_ context.Context, request any) (any, error) {
		r := request.(concatRequest)
		return concatAnswer{r.A + r.B}, nil
	}, decodeRequest[concatRequest], kithttp.EncodeJSONResponse))
	return mux
}

// NewHTTPClient returns the service at an address: host:port, or a URL.
func NewHTTPClient(instance string, options ...kithttp.ClientOption) (Set, error) {
	u, err := url.Parse(instance)
	if err != nil || u.Host == "" {
		if u, err = url.Parse("http://" + instance); err != nil {
			return Set{}, err
		}
	}
	return Set{
		SumEndpoint:    kithttp.NewClient(http.MethodPost, u.JoinPath("sum"), kithttp.EncodeJSONRequest, decodeAnswer[sumAnswer], options...).Endpoint(),
		ConcatEndpoint: kithttp.NewClient(http.MethodPost, u.JoinPath("concat"), kithttp.EncodeJSONRequest, decodeAnswer[concatAnswer], options...).Endpoint(),
	}, nil
}

func decodeRequest[T any](_ context.Context, r *http.Request) (any, error) {
	var request T
	err := json.NewDecoder(r.Body).Decode(&request)
	return request, err
}

func decodeAnswer[T any](_ context.Context, r *http.Response) (any, error) {
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("addsvc answers %s", r.Status)
	}
	var answer T
	err := json.NewDecoder(r.Body).Decode(&answer)
	return answer, err
}
