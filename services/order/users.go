package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/go-kit/kit/endpoint"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// UserTimeout is the default of how long the user service is waited for, all
// tries together. It lies below the second that callers give each try of theirs,
// so that they see our degraded answer and not a timeout.
const UserTimeout = 800 * time.Millisecond

// maxUserAnswer is the size of the largest answer that is read, in bytes.
const maxUserAnswer = 64 << 10

// NewUsers returns Users that asks the endpoint, which takes a user's ID (an
// int64) and answers whether there is one (a bool), such as NewUserEndpoint's.
// It waits for timeout at most; 0 means UserTimeout.
func NewUsers(exists endpoint.Endpoint, timeout time.Duration) Users {
	if timeout <= 0 {
		timeout = UserTimeout
	}
	return users{exists: exists, timeout: timeout}
}

type users struct {
	exists  endpoint.Endpoint
	timeout time.Duration
}

func (u users) Exists(ctx context.Context, user int64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	answer, err := u.exists(ctx, user)
	if err != nil {
		return false, err
	}
	exists, ok := answer.(bool)
	if !ok {
		return false, fmt.Errorf("the user endpoint answers with %T; want bool", answer)
	}
	return exists, nil
}

// NewUserEndpoint returns an endpoint that asks the service "user", by that
// name, whether a user exists. client sends to services by their names, as
// (*discovery.Mesh).Client does.
//
// Only the two answers that say so are an answer: 200 with that user, and 404.
// Everything else is an error: it tells of user's state, not of a user.
func NewUserEndpoint(client *http.Client) (endpoint.Endpoint, error) {
	find, err := kitmesh.Endpoint(client, http.MethodGet, "user", askForUser, readUser)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, request any) (any, error) {
		found, err := find(ctx, request)
		if err != nil {
			return nil, err
		}
		if found != noUser && found != request {
			return nil, fmt.Errorf("asked for user %d, user answers with user %d", request, found)
		}
		return found != noUser, nil
	}, nil
}

// noUser is no user's ID.
const noUser int64 = 0

func askForUser(_ context.Context, r *http.Request, request any) error {
	id, ok := request.(int64)
	if !ok {
		return fmt.Errorf("the user endpoint takes an int64; got %T", request)
	}
	r.URL.Path = "/users/" + strconv.FormatInt(id, 10)
	return nil
}

// readUser returns the ID of the user that was found (an int64), or noUser.
func readUser(_ context.Context, resp *http.Response) (any, error) {
	// Read to its end, or the connection can't be used again.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxUserAnswer))
	if err != nil {
		return nil, fmt.Errorf("read user's answer: %w", err)
	}
	switch resp.StatusCode {
	case http.StatusNotFound:
		return noUser, nil
	case http.StatusOK:
	default:
		return nil, fmt.Errorf("user answers %s; want 200 or 404", resp.Status)
	}
	var user struct {
		ID int64 `json:"id"`
	}
	if err := json.Unmarshal(body, &user); err != nil {
		return nil, fmt.Errorf("read user's answer: %w", err)
	}
	if user.ID == noUser {
		return nil, errors.New("user answers 200 without a user")
	}
	return user.ID, nil
}

// blameUser marks a problem that the service user has caused, which was tried as
// often as it may be: who asked us is not to try all of it again.
func blameUser(p *problem.Problem) *problem.Problem {
	if p.Header == nil {
		p.Header = http.Header{}
	}
	p.Header.Set(httpmesh.ReasonHeader, httpmesh.ReasonDownstream)
	return p
}
