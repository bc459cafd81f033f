package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/go-kit/kit/endpoint"

	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/paging"
	"github.com/rollcall-mesh/rollcall/services/internal/rest"
)

// DegradedHeader of an answer names the service that could not be asked for it.
const DegradedHeader = "X-Degraded"

// NewHTTPHandler binds the endpoints to HTTP:
//
//	GET  /orders/{user}          200, a page of the user's orders, and a Link to the next
//	GET  /orders/{user}/{order}  200, that order
//	POST /orders/{user}          201, the new order, and its Location
//
// A POST with an Idempotency-Key is done once. Everything else, and every error, is a problem (RFC 9457). An answer that was
// given without the user service has the DegradedHeader. Errors that are our
// fault are logged.
func NewHTTPHandler(e Endpoints, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /orders/{user}", rest.Server(explain(e.List), decodeList, encodeList, log))
	mux.Handle("GET /orders/{user}/{order}", rest.Server(explain(e.Find), decodeFind, encodeFind, log))
	mux.Handle("POST /orders/{user}", rest.Server(explain(e.Place), decodePlace, encodePlaced, log))
	return problem.Router(mux)
}

// explain makes problems of this package's own errors.
func explain(next endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		response, err := next(ctx, request)
		unavailable := errors.Is(err, ErrUsersUnavailable)
		switch {
		case errors.Is(err, ErrUserNotFound):
			p := problem.New(http.StatusNotFound, "there is no such user")
			p.Cause = err
			return nil, p
		case errors.Is(err, ErrNotFound):
			p := problem.New(http.StatusNotFound, "the user has no such order")
			p.Cause = err
			if unavailable {
				p.Header = http.Header{DegradedHeader: {"user"}}
			}
			return nil, p
		case unavailable:
			return nil, blameUser(problem.Unavailable(err, "whether there is such a user can't be found out now: the service user does not answer"))
		}
		return response, err
	}
}

func decodeList(_ context.Context, r *http.Request) (any, error) {
	user, err := rest.ID(r, "user")
	if err != nil {
		return nil, err
	}
	page, err := paging.Read(r)
	return ListRequest{User: user, Page: page}, err
}

func encodeList(_ context.Context, w http.ResponseWriter, response any) error {
	answer := response.(ListResponse)
	mark(w, answer.Degraded)
	if answer.Orders == nil {
		answer.Orders = []Order{} // [], never null, whatever the store returns
	}
	if answer.More {
		paging.LinkNext(w, fmt.Sprintf("/orders/%d", answer.User), answer.Orders[len(answer.Orders)-1].ID, answer.Page.Limit)
	}
	return rest.Encode(w, http.StatusOK, answer.Orders)
}

func decodeFind(_ context.Context, r *http.Request) (any, error) {
	user, err := rest.ID(r, "user")
	if err != nil {
		return nil, err
	}
	order, err := rest.ID(r, "order")
	return FindRequest{User: user, Order: order}, err
}

func encodeFind(_ context.Context, w http.ResponseWriter, response any) error {
	answer := response.(FindResponse)
	mark(w, answer.Degraded)
	return rest.Encode(w, http.StatusOK, answer.Order)
}

func decodePlace(_ context.Context, r *http.Request) (any, error) {
	user, err := rest.ID(r, "user")
	if err != nil {
		return nil, err
	}
	request := PlaceRequest{User: user}
	request.Once, err = rest.DecodeKeyed(r, rest.Fields{"item": &request.Item})
	return request, err
}

func encodePlaced(_ context.Context, w http.ResponseWriter, response any) error {
	response.(PlaceResponse).Answer.Write(w)
	return nil
}

// tellPlaced is the answer for a new order.
func tellPlaced(user int64, o Order) (idempotency.Answer, error) {
	body, err := rest.Marshal(o)
	return idempotency.Answer{Status: http.StatusCreated, Location: fmt.Sprintf("/orders/%d/%d", user, o.ID), Body: body}, err
}

func mark(w http.ResponseWriter, degraded bool) {
	if degraded {
		w.Header().Set(DegradedHeader, "user")
	}
}
