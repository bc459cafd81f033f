package watch

import (
	"context"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// kind is what a query is for.
type kind int

const (
	// fetch begins anew: index 0, any server answers.
	fetch kind = iota
	// block waits for an index above ours.
	block
	// confirm asks the leader, at once: index 0, not stale, not streamed.
	confirm
	// whole asks the leader without our filter, whether what it keeps out is still
	// there.
	whole
	// audit asks for nothing but the index. It costs Consul little, is never
	// streamed, and so proves what a streamed answer does not.
	audit
	// scan is an audit that says besides whether our token may see all there is.
	// Consul runs a filter over the whole service for it.
	scan
)

// ops are the kinds as Trace.Asked names them, opToken another question.
var ops = [...]string{fetch: "fetch", block: "block", confirm: "confirm", whole: "whole", audit: "audit", scan: "scan"}

const opToken = "token"

// The limits of a query that is answered at once. A blocking one has its wait,
// the sixteenth of it that Consul may add
// (https://developer.hashicorp.com/consul/api-docs/features/blocking), and slack.
const (
	quickLimit = 10 * time.Second
	auditLimit = 5 * time.Second
	slack      = 5 * time.Second
)

// turn is about how often each service has a query when there are more of them
// than places.
const turn = 5 * time.Second

// scanFilter matches no instance.
const scanFilter = `Service.ID == "~"`

// anonymous is the accessor of the token of calls that have none
// (https://developer.hashicorp.com/consul/docs/secure/acl/token).
const anonymous = "00000000-0000-0000-0000-000000000002"

// answer is what came of a query.
type answer struct {
	kind    kind
	entries []*api.ServiceEntry
	meta    api.QueryMeta
	sent    time.Time
	wait    time.Duration // that a blocking query was to be held at most
	took    time.Duration
	// blindfold is set when we may not see the service at all: an empty answer
	// means nothing then.
	blindfold bool
	// compared is set when it has been compared with an unfiltered one.
	compared bool
	err      error
	early    <-chan struct{} // closed by a Retry since the question was asked
}

// question is one to Consul.
type question struct {
	kind kind
	// index is that above which a blocking query waits.
	index uint64
	// longest bounds its wait. 0 means as long as it likes.
	longest time.Duration
}

// ask waits for a place and asks Consul once. It is bounded by ctx and by the
// limit of its kind.
func (w *Watcher) ask(ctx context.Context, service string, q question) (a answer) {
	k := q.kind
	place := w.quick
	if k == block {
		place = w.blocking
	}
	if err := place.enter(ctx); err != nil {
		return answer{kind: k, err: err}
	}
	defer place.leave()

	options := api.QueryOptions{Datacenter: w.cfg.Datacenter}
	if k != whole && k != audit {
		options.Filter = w.cfg.Filter
	}
	limit := quickLimit
	switch k {
	case fetch:
		options.AllowStale = true
	case block:
		// Below 1 it would not block (Consul's rule), and spin.
		options.WaitIndex, options.WaitTime = max(q.index, 1), w.wait()
		if q.longest > 0 {
			options.WaitTime = min(options.WaitTime, q.longest)
		}
		limit = options.WaitTime + options.WaitTime/16 + slack
	case confirm, whole:
	case audit:
		options.AllowStale = true
		limit = auditLimit
	case scan:
		options.AllowStale, options.Filter = true, scanFilter
		limit = auditLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a = answer{kind: k, sent: time.Now(), wait: options.WaitTime}
	defer func() { a.took = time.Since(a.sent) }()
	w.cfg.Trace.asked(ops[k])
	var meta *api.QueryMeta
	var err error
	if k == audit {
		meta, err = consul.Index(w.cfg.Client, service, options.WithContext(ctx))
	} else {
		a.entries, meta, err = consul.Instances(w.cfg.Client, service, options.WithContext(ctx))
	}
	if err != nil {
		if consul.StatusCode(err) == http.StatusTooManyRequests {
			w.blocking.squeeze()
		}
		a.err = err
		return a
	}
	a.meta = *meta
	if k == confirm && len(a.entries) == 0 && meta.DefaultACLPolicy == "deny" {
		a.blindfold, a.err = w.blindfolded(ctx)
	}
	return a
}

// wait is Config.Wait while there is a place for every service, and short
// enough for each to have its turn when there is not.
func (w *Watcher) wait() time.Duration {
	services, places := len(*w.followers.Load()), w.blocking.width()
	if services <= places {
		return w.cfg.Wait
	}
	return min(w.cfg.Wait, turn*time.Duration(places)/time.Duration(services))
}

// blindfolded reports whether we have no token of our own. Where the default
// is deny, Consul then answers 200 with an empty list, and says nowhere that
// it left something out.
func (w *Watcher) blindfolded(ctx context.Context) (bool, error) {
	w.cfg.Trace.asked(opToken)
	token, _, err := w.cfg.Client.ACL().TokenReadSelf((&api.QueryOptions{}).WithContext(ctx))
	switch {
	case consul.Denied(err):
		return true, nil
	case err != nil:
		return false, consul.Clip(err)
	}
	return token.AccessorID == anonymous, nil
}
