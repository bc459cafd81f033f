package kitmesh

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-kit/kit/endpoint"
	kithttp "github.com/go-kit/kit/transport/http"
)

const maxServiceBytes = 128 // as registration allows

// Endpoint returns a go-kit endpoint that calls a service by name: client is
// the mesh's, as (*discovery.Mesh).Client returns it; target is the service,
// with a path if it is always the same ("user", "user/users"), after https:// if its
// instances speak TLS. enc fills the
// request in (its path too, where it differs from call to call), dec reads the
// response: of whatever status, since the mesh judges no answer. options are
// go-kit's own; its SetClient is overruled by client.
//
// The endpoint waits, tries and tries again within its context, which should
// have a deadline. Its error is enc's, dec's, or one of the transport:
// errors.Is finds catalog.ErrNoInstance in it when the service has no instance,
// and errors.As an *httpmesh.Error, which tells of each try. An error of
// Endpoint itself names the argument that can't be used.
//
// A request that never reached an instance is sent to another one whatever its
// method and body; see httpmesh for what else is tried again.
func Endpoint(client *http.Client, method, target string, enc kithttp.EncodeRequestFunc, dec kithttp.DecodeResponseFunc, options ...kithttp.ClientOption) (endpoint.Endpoint, error) {
	switch {
	case client == nil:
		return nil, errors.New("kitmesh: client is nil; want the mesh's")
	case enc == nil:
		return nil, errors.New("kitmesh: enc is nil; want a function that fills in the request")
	case dec == nil:
		return nil, errors.New("kitmesh: dec is nil; want a function that reads the response")
	case method == "":
		return nil, errors.New(`kitmesh: method is empty; want one such as "GET"`)
	}
	u, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	if _, err := http.NewRequest(method, u.String(), http.NoBody); err != nil { //nolint:noctx // never sent: it checks the method
		return nil, fmt.Errorf("kitmesh: method is %q: %w", method, err)
	}
	all := append(slices.Clip(options), kithttp.SetClient(client))
	return kithttp.NewClient(method, u, enc, dec, all...).Endpoint(), nil
}

func parseTarget(target string) (*url.URL, error) {
	rest, secure := strings.CutPrefix(target, "https://")
	service, path, _ := strings.Cut(rest, "/")
	if !validService(service) || strings.ContainsAny(path, "?#") {
		return nil, fmt.Errorf(`kitmesh: target is %q; want %s, without a port, perhaps after https://, and perhaps a path: "user" or "user/users"`, target, serviceWanted)
	}
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	u, err := url.Parse(scheme + rest)
	if err != nil {
		return nil, fmt.Errorf("kitmesh: target is %q: %w", target, err)
	}
	return u, nil
}

func validService(name string) bool {
	return name != "" && len(name) <= maxServiceBytes && strings.Trim(name, letters) == ""
}

const serviceWanted = "a service's name of up to 128 letters, digits, '-', '.' and '_'"

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
