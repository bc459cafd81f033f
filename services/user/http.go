package user

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/go-kit/kit/endpoint"

	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/paging"
	"github.com/rollcall-mesh/rollcall/services/internal/rest"
)

// NewHTTPHandler binds the endpoints to HTTP:
//
//	GET  /users       200, a page of the users, and a Link to the next
//	GET  /users/{id}  200, the user
//	POST /users       201, the new user, and its Location
//
// A POST with an Idempotency-Key is done once. Everything else, and every error, is a problem (RFC 9457). Errors that are
// our fault are logged.
func NewHTTPHandler(e Endpoints, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /users", rest.Server(e.List, decodeList, encodeList, log))
	mux.Handle("GET /users/{id}", rest.Server(sayNotFound(e.Find), decodeFind, encodeFind, log))
	mux.Handle("POST /users", rest.Server(e.Create, decodeCreate, encodeCreated, log))
	return problem.Router(mux)
}

// sayNotFound makes a 404 problem of ErrNotFound.
func sayNotFound(next endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		response, err := next(ctx, request)
		if errors.Is(err, ErrNotFound) {
			p := problem.New(http.StatusNotFound, "there is no user %d", request.(FindRequest).ID)
			p.Cause = err
			return nil, p
		}
		return response, err
	}
}

func decodeList(_ context.Context, r *http.Request) (any, error) {
	page, err := paging.Read(r)
	return ListRequest{Page: page}, err
}

func encodeList(_ context.Context, w http.ResponseWriter, response any) error {
	answer := response.(ListResponse)
	if answer.Users == nil {
		answer.Users = []User{} // [], never null, whatever the store returns
	}
	if answer.More {
		paging.LinkNext(w, "/users", answer.Users[len(answer.Users)-1].ID, answer.Page.Limit)
	}
	return rest.Encode(w, http.StatusOK, answer.Users)
}

func decodeFind(_ context.Context, r *http.Request) (any, error) {
	id, err := rest.ID(r, "id")
	return FindRequest{ID: id}, err
}

func encodeFind(_ context.Context, w http.ResponseWriter, response any) error {
	return rest.Encode(w, http.StatusOK, response)
}

func decodeCreate(_ context.Context, r *http.Request) (any, error) {
	var request CreateRequest
	var err error
	request.Once, err = rest.DecodeKeyed(r, rest.Fields{"name": &request.Name})
	return request, err
}

func encodeCreated(_ context.Context, w http.ResponseWriter, response any) error {
	response.(CreateResponse).Answer.Write(w)
	return nil
}

// tellCreated is the answer for a new user.
func tellCreated(u User) (idempotency.Answer, error) {
	body, err := rest.Marshal(u)
	return idempotency.Answer{Status: http.StatusCreated, Location: "/users/" + strconv.FormatInt(u.ID, 10), Body: body}, err
}
