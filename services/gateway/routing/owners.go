package routing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// The owners of routes are one document in Consul's KV: an object with the service for
// each route that any service claims, not only for those that several claim. So the one
// that was there first keeps it, whatever comes later, and whatever gateway is started
// later.

// maxOwners bounds the document, and so the routes of a table. With the bounds of a
// route's parts it keeps the document below the 512 KiB that Consul takes.
const maxOwners = 1000

// parseOwners reads the document; nil is an empty one.
func parseOwners(text []byte) (map[string]string, error) {
	owners := map[string]string{}
	if len(text) == 0 {
		return owners, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&owners); err != nil {
		return nil, fmt.Errorf("it is no object of strings: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind the object")
	}
	if len(owners) > maxOwners {
		return nil, fmt.Errorf("it has %d routes; want at most %d", len(owners), maxOwners)
	}
	for key, service := range owners {
		if _, err := ParseRoute(key, service); err != nil {
			return nil, err
		}
	}
	return owners, nil
}

func writeOwners(owners map[string]string) []byte {
	text, err := json.MarshalIndent(owners, "", " ") // keys are sorted
	if err != nil {
		return nil // strings can't fail
	}
	return append(text, '\n')
}

// owners is what a Learner knows of them.
type owners struct {
	known  bool // what is in Consul is known
	err    error
	denied bool      // the last write was refused for want of rights
	again  time.Time // when the next write may be tried
	index  uint64
	record map[string]string    // by the route's key
	absent map[string]time.Time // since when the recorded owner of a route does not claim it
}

// heard takes the document as Consul has it. One that can't be read counts as none, and
// is not written over: so all gateways agree, those that are started later too. While
// Consul is away the last one holds.
func (o *owners) heard(text []byte, index uint64, err error) {
	if err == nil {
		var record map[string]string
		if record, err = parseOwners(text); err != nil {
			record, err = map[string]string{}, fmt.Errorf("%w; want it deleted, and gateways write it anew", err)
		}
		o.record, o.index, o.known = record, index, err == nil
	}
	o.err = err
}

// writable reports whether the document may be written now.
func (o *owners) writable(now time.Time) bool {
	return o.known && o.err == nil && !now.Before(o.again)
}

// of returns who has the route that these services claim (sorted, at least one), and is
// to be recorded for it. last is who had it so far, empty if nobody.
func (o *owners) of(key string, claimants []string, last string, left func(service string) bool, now time.Time) string {
	recorded, ok := o.record[key]
	if ok && slices.Contains(claimants, recorded) {
		delete(o.absent, key)
		return recorded
	}
	if ok && !o.over(key, left(recorded), now) {
		return recorded
	}
	// Whoever writes first decides, and the others hear of it. Until then, and for
	// want of the right, each can only go by what all can see.
	if o.known && !o.denied && slices.Contains(claimants, last) {
		return last
	}
	return claimants[0]
}

// over reports whether a recorded owner that does not claim its route has lost it: at
// once if it is there and does not want it, else after a while in which it may come
// back.
func (o *owners) over(key string, left bool, now time.Time) bool {
	if left {
		return true
	}
	since, ok := o.absent[key]
	if !ok {
		o.absent[key], since = now, now
	}
	return now.Sub(since) >= HoldFor
}

// next returns the document as it should be: who is to be recorded for what is claimed,
// and of the rest those whose time is not over.
func (o *owners) next(claimed map[string]string, left func(service string) bool, now time.Time) map[string]string {
	next := maps.Clone(claimed)
	for key, service := range o.record {
		if _, ok := claimed[key]; !ok && len(next) < maxOwners && !o.over(key, left(service), now) {
			next[key] = service
		}
	}
	maps.DeleteFunc(o.absent, func(key string, _ time.Time) bool { return o.record[key] == "" })
	return next
}
