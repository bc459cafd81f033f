package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/internal/clip"
	"github.com/rollcall-mesh/rollcall/internal/pause"
)

const (
	// followWait is for how long Consul holds a question of Follow.
	followWait = 30 * time.Second
	// followGrace is how long its answer may take besides: with Consul's own
	// sixteenth more, and the way there and back.
	followGrace = 10 * time.Second
	// FollowEvery is the least time between two questions of Follow.
	FollowEvery = time.Second
)

// Follow asks one question for ever, until ctx ends. Consul holds it until there is
// news, but it is asked once in FollowEvery at most, however often there is some;
// after a failure as Backoff says. One that is not held, which is the first and the one
// after a failure, is followed by the next at once. ask puts the question, and told gets
// each answer and each failure: the first answer, then one for each piece of news, and at
// times one that is no news.
func Follow[T any](ctx context.Context, ask func(q *api.QueryOptions) (T, *api.QueryMeta, error), told func(T, *api.QueryMeta, error)) error {
	var (
		backoff Backoff
		hold    Hold
		line    Line
		index   uint64
	)
	for {
		began := time.Now()
		wait := followWait
		if most := hold.Longest(began); most > 0 {
			wait = min(wait, most)
		}
		asking, cancel := context.WithTimeout(ctx, wait+followGrace)
		asking = line.Ask(asking, index > 0)
		answer, meta, err := ask((&api.QueryOptions{WaitIndex: index, WaitTime: wait}).WithContext(asking))
		anew := err != nil && errors.Is(context.Cause(asking), ErrNewConnection)
		cancel()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !anew {
			told(answer, meta, err)
		}
		now := time.Now()
		rest := FollowEvery - now.Sub(began)
		switch held := now.Sub(began); {
		case anew:
			index = 0
		case err == nil:
			backoff.Reset()
			if index > 0 {
				hold.Whole()
			} else if meta.LastIndex > 0 {
				rest = 0 // while the connection is there that the index came over
			}
			index = upon(index, meta.LastIndex)
		case index > 0 && held >= LeastHold && held < wait && cutShort(err):
			hold.Cut(held, now)
			index = 0 // it may as well have been Consul's end
		default:
			hold.Whole()
			// What is there is asked for at once when Consul answers again.
			index, rest = 0, max(rest, backoff.Next(err))
		}
		if err := pause.For(ctx, rest, nil); err != nil {
			return err
		}
	}
}

// upon is the index to ask above after an answer's. One that went backwards, or is none,
// is that of another life of Consul: it is asked anew.
func upon(index, answered uint64) uint64 {
	if answered < index {
		return 0
	}
	return answered
}

// cutShort reports whether a proxy may have ended a question that took too long for it.
func cutShort(err error) bool {
	if slices.Contains([]int{http.StatusRequestTimeout, http.StatusGatewayTimeout}, StatusCode(err)) {
		return true
	}
	return Unreachable(err) && !errors.Is(err, context.DeadlineExceeded)
}

// CatalogServices asks for the names of all services with the tags that any instance
// of theirs has.
func CatalogServices(client *api.Client, q *api.QueryOptions) (services map[string][]string, meta *api.QueryMeta, err error) {
	defer readable(&err)
	if services, meta, err = client.Catalog().Services(q); err != nil {
		return nil, nil, err
	}
	if services == nil {
		return nil, nil, errNull
	}
	return services, meta, nil
}

// AllChecks asks for every check in the catalog, those of nodes too.
func AllChecks(client *api.Client, q *api.QueryOptions) (all api.HealthChecks, meta *api.QueryMeta, err error) {
	defer readable(&err)
	if all, meta, err = client.Health().State(api.HealthAny, q); err != nil {
		return nil, nil, err
	}
	if all == nil || slices.Contains(all, nil) {
		return nil, nil, errNull
	}
	return all, meta, nil
}

// Leader asks which server leads; an error is told too where none does. It costs Consul
// nothing, and proves that it can be asked.
func Leader(client *api.Client, q *api.QueryOptions) (err error) {
	defer readable(&err)
	leader, err := client.Status().LeaderWithQueryOptions(q)
	if err == nil && leader == "" {
		return errors.New("its servers have no leader")
	}
	return err
}

// ErrDenied is the error, wrapped, of a call that the token has no right to.
var ErrDenied = errors.New("the token lacks the right")

// marked makes the refusal of a right one that errors.Is can tell. Defer it before
// readable.
func marked(err *error) {
	if Denied(*err) {
		*err = fmt.Errorf("%w: %w", ErrDenied, *err)
	}
}

// Pair is the value under a key, and the index by which PutKey replaces it: nil and 0 if
// there is none.
type Pair struct {
	Value []byte
	Index uint64
}

// Key asks for the value under a key.
func Key(client *api.Client, key string, q *api.QueryOptions) (value Pair, meta *api.QueryMeta, err error) {
	defer marked(&err)
	defer readable(&err)
	pair, meta, err := client.KV().Get(key, q)
	if err != nil || pair == nil {
		return Pair{}, meta, err
	}
	return Pair{Value: pair.Value, Index: pair.ModifyIndex}, meta, nil
}

// PutKey writes the value if the key's index is still that one, 0 for a key that is
// not there, and reports whether it was.
func PutKey(ctx context.Context, client *api.Client, key string, value []byte, index uint64) (written bool, err error) {
	defer marked(&err)
	defer readable(&err)
	pair := &api.KVPair{Key: key, Value: value, ModifyIndex: index}
	written, _, err = client.KV().CAS(pair, (&api.WriteOptions{}).WithContext(ctx))
	return written, err
}

// maxKeyBytes bounds a key's length.
const maxKeyBytes = 512

// CheckKey says what is wrong with a key: nil if it can be one.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKeyBytes || key[0] == '/' || !printable(key) {
		return fmt.Errorf("the key is %q; want 1 to %d bytes of printable ASCII that do not begin with a slash", clip.To(80, key), maxKeyBytes)
	}
	return nil
}
