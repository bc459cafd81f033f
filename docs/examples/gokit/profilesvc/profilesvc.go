// Package profilesvc is a go-kit service in the shape of go-kit's own example of
// that name: profiles, created, read, replaced and deleted over HTTP. It knows
// nothing of discovery.
package profilesvc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/go-kit/kit/endpoint"
	kithttp "github.com/go-kit/kit/transport/http"
)

// Profile is what the service keeps.
type Profile struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Service is what it does.
type Service interface {
	PostProfile(ctx context.Context, p Profile) error
	GetProfile(ctx context.Context, id string) (Profile, error)
	PutProfile(ctx context.Context, p Profile) error
	DeleteProfile(ctx context.Context, id string) error
}

// What the service says no with.
var (
	ErrNotFound = errors.New("no such profile")
	ErrExists   = errors.New("the profile exists")
)

// New returns a service that keeps profiles in memory. Each has the profile "ann"
// from the start.
func New() Service { return &inMemory{profiles: map[string]Profile{"ann": {ID: "ann", Name: "Ann"}}} }

type inMemory struct {
	mu       sync.Mutex // guards what follows
	profiles map[string]Profile
}

func (s *inMemory) PostProfile(_ context.Context, p Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.profiles[p.ID]; ok {
		return ErrExists
	}
	s.profiles[p.ID] = p
	return nil
}

func (s *inMemory) GetProfile(_ context.Context, id string) (Profile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.profiles[id]
	if !ok {
		return Profile{}, ErrNotFound
	}
	return p, nil
}

func (s *inMemory) PutProfile(_ context.Context, p Profile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiles[p.ID] = p
	return nil
}

func (s *inMemory) DeleteProfile(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.profiles[id]; !ok {
		return ErrNotFound
	}
	delete(s.profiles, id)
	return nil
}

// Endpoints is a Service made of endpoints: a server's, or a client's.
type Endpoints struct {
	Post, Get, Put, Delete endpoint.Endpoint
}

// MakeServerEndpoints returns the service's endpoints.
func MakeServerEndpoints(s Service) Endpoints {
	return Endpoints{
		Post: func(ctx context.Context, request any) (any, error) {
			return answer{err: s.PostProfile(ctx, request.(Profile))}, nil
		},
		Get: func(ctx context.Context, request any) (any, error) {
			p, err := s.GetProfile(ctx, request.(Profile).ID)
			return answer{Profile: p, err: err}, nil
		},
		Put: func(ctx context.Context, request any) (any, error) {
			return answer{err: s.PutProfile(ctx, request.(Profile))}, nil
		},
		Delete: func(ctx context.Context, request any) (any, error) {
			return answer{err: s.DeleteProfile(ctx, request.(Profile).ID)}, nil
		},
	}
}

// MakeClientEndpoints returns the endpoints of the service at an address: host:port,
// or a URL.
func MakeClientEndpoints(instance string, options ...kithttp.ClientOption) (Endpoints, error) {
	u, err := url.Parse(instance)
	if err != nil || u.Host == "" {
		if u, err = url.Parse("http://" + instance); err != nil {
			return Endpoints{}, err
		}
	}
	client := func(method string, encode kithttp.EncodeRequestFunc) endpoint.Endpoint {
		return kithttp.NewClient(method, u.JoinPath("profiles/"), encode, decodeAnswer, options...).Endpoint()
	}
	return Endpoints{
		Post:   client(http.MethodPost, kithttp.EncodeJSONRequest),
		Get:    client(http.MethodGet, encodeID),
		Put:    client(http.MethodPut, encodeProfile),
		Delete: client(http.MethodDelete, encodeID),
	}, nil
}

// PostProfile implements Service.
func (e Endpoints) PostProfile(ctx context.Context, p Profile) error {
	_, err := call(ctx, e.Post, p)
	return err
}

// GetProfile implements Service.
func (e Endpoints) GetProfile(ctx context.Context, id string) (Profile, error) {
	return call(ctx, e.Get, Profile{ID: id})
}

// PutProfile implements Service.
func (e Endpoints) PutProfile(ctx context.Context, p Profile) error {
	_, err := call(ctx, e.Put, p)
	return err
}

// DeleteProfile implements Service.
func (e Endpoints) DeleteProfile(ctx context.Context, id string) error {
	_, err := call(ctx, e.Delete, Profile{ID: id})
	return err
}

func call(ctx context.Context, e endpoint.Endpoint, p Profile) (Profile, error) {
	response, err := e(ctx, p)
	if err != nil {
		return Profile{}, err
	}
	a := response.(answer)
	return a.Profile, a.err
}

// answer is a response; what the service says no with is in it, and no error of the
// endpoint's.
type answer struct {
	Profile
	err error
}

// Failed implements endpoint.Failer.
func (a answer) Failed() error { return a.err }

// MakeHandler returns the service over HTTP.
func MakeHandler(s Service) http.Handler {
	e, mux := MakeServerEndpoints(s), http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("POST /profiles/{$}", kithttp.NewServer(e.Post, decodeProfile, encodeAnswer))
	mux.Handle("GET /profiles/{id}", kithttp.NewServer(e.Get, decodeID, encodeAnswer))
	mux.Handle("PUT /profiles/{id}", kithttp.NewServer(e.Put, decodeProfile, encodeAnswer))
	mux.Handle("DELETE /profiles/{id}", kithttp.NewServer(e.Delete, decodeID, encodeAnswer))
	return mux
}

func decodeID(_ context.Context, r *http.Request) (any, error) {
	return Profile{ID: r.PathValue("id")}, nil
}

func decodeProfile(_ context.Context, r *http.Request) (any, error) {
	var p Profile
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		return nil, err
	}
	return p, nil
}

func encodeAnswer(_ context.Context, w http.ResponseWriter, response any) error {
	a := response.(answer)
	switch {
	case errors.Is(a.err, ErrNotFound):
		w.WriteHeader(http.StatusNotFound)
	case errors.Is(a.err, ErrExists):
		w.WriteHeader(http.StatusConflict)
	}
	return json.NewEncoder(w).Encode(a.Profile)
}

func encodeID(_ context.Context, r *http.Request, request any) error {
	r.URL = r.URL.JoinPath(url.PathEscape(request.(Profile).ID))
	return nil
}

func encodeProfile(ctx context.Context, r *http.Request, request any) error {
	if err := encodeID(ctx, r, request); err != nil {
		return err
	}
	return kithttp.EncodeJSONRequest(ctx, r, request)
}

func decodeAnswer(_ context.Context, r *http.Response) (any, error) {
	switch r.StatusCode {
	case http.StatusOK:
		var a answer
		err := json.NewDecoder(r.Body).Decode(&a.Profile)
		return a, err
	case http.StatusNotFound:
		return answer{err: ErrNotFound}, nil
	case http.StatusConflict:
		return answer{err: ErrExists}, nil
	}
	return nil, fmt.Errorf("profilesvc answers %s", r.Status)
}
