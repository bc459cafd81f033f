package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// StatusCode returns the HTTP status by which Consul refused a call: 0 if err
// is not such a refusal.
func StatusCode(err error) int {
	if status, ok := errors.AsType[api.StatusError](err); ok {
		return status.Code
	}
	return 0
}

// Denied reports whether Consul refused the call for want of rights, or does
// not know the token.
func Denied(err error) bool {
	code := StatusCode(err)
	return code == http.StatusForbidden || code == http.StatusUnauthorized
}

// Unknown reports whether the agent itself says that it does not know the ID of
// a service or of a check. Any other 404, a proxy's page for one, says nothing
// about the ID.
func Unknown(err error) bool {
	status, ok := errors.AsType[api.StatusError](err)
	if !ok || status.Code != http.StatusNotFound {
		return false
	}
	// The words of Consul 1.22: agent/service/:id has the first, all else that
	// takes an ID (deregister, maintenance, check/update) the others.
	return slices.ContainsFunc([]string{"unknown service ID: ", "Unknown service ID ", "Unknown check ID "}, func(words string) bool {
		return strings.HasPrefix(status.Body, words)
	})
}

// Unreachable reports whether no answer came: no connection, one that broke
// off, or none in time.
func Unreachable(err error) bool {
	if StatusCode(err) != 0 {
		return false
	}
	_, network := errors.AsType[net.Error](err) // *url.Error and a context's deadline too
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

// ErrEnterprise is the error, wrapped, of a call that names a namespace or a
// partition to Consul's community edition, whose names for them ("default" too)
// it refuses.
var ErrEnterprise = errors.New("Consul's community edition knows no namespaces and no partitions") //nolint:staticcheck // a name begins it

// ErrNoPath is the error, wrapped, of a call for a datacenter that Consul does not
// know, or can't reach.
var ErrNoPath = errors.New("Consul has no way to the datacenter") //nolint:staticcheck // a name begins it

// Clip returns err with the body of Consul's refusal cut to a line's length: a
// proxy before Consul may answer with pages of HTML. A refusal that has a name
// here wraps it.
func Clip(err error) error {
	const most = 200
	status, ok := errors.AsType[api.StatusError](err)
	if !ok {
		return err
	}
	if len(status.Body) > most {
		err = api.StatusError{Code: status.Code, Body: clip.To(most, status.Body)}
	}
	// The words of Consul 1.22.
	switch {
	case status.Code == http.StatusBadRequest && strings.Contains(status.Body, "are a Consul Enterprise feature"):
		return fmt.Errorf("%w: %w", ErrEnterprise, err)
	case status.Code == http.StatusInternalServerError && strings.Contains(status.Body, "No path to datacenter"):
		return fmt.Errorf("%w: %w", ErrNoPath, err)
	}
	return err
}

// The bounds of Backoff.
const (
	backoffBase = 100 * time.Millisecond
	// backoffUnreachable is short: a dial to a closed port costs little, and
	// everything should be back soon after Consul is.
	backoffUnreachable = time.Second
	// backoffRefused spares a Consul that is there and has trouble.
	backoffRefused = 10 * time.Second
)

// Backoff spaces the tries of a call that goes on for ever: from 100 ms,
// doubling up to 1 s while there is no connection and up to 10 s while Consul
// answers but refuses (429, 403, 5xx, nonsense; from 200 ms on after it was
// away), each with full jitter
// (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
// The zero value is ready. It belongs to one goroutine.
type Backoff struct {
	failures int
	away     bool // the latest failure was that Consul could not be reached
}

// Next returns how long to wait after this failure: 0 up to the bound.
func (b *Backoff) Next(err error) time.Duration { return rand.N(b.bound(err) + 1) }

// Reset makes the next wait short again: call it after a success.
func (b *Backoff) Reset() { b.failures = 0 }

func (b *Backoff) bound(err error) time.Duration {
	away, most := Unreachable(err), backoffRefused
	if away {
		most = backoffUnreachable
	} else if b.away {
		// It is back, and refuses while it chooses a leader: a matter of seconds.
		b.failures = min(b.failures, 1)
	}
	b.away = away
	wait := backoffBase << b.failures
	if wait < most {
		b.failures++ // stops growing, so that the shift can't overflow
	}
	return min(wait, most)
}
