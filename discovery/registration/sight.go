package registration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/internal/pause"
)

const (
	// holdServices is for how long Consul may hold the question about the node's
	// services. It bounds what servers that lose their data in silence cost: a
	// question with an index above theirs is answered no sooner.
	holdServices = 10 * time.Second
	// holdChecks is the same for the node's checks, which go with the services. Their
	// index is that of all checks of the cluster: where others change, a question is
	// answered at once after each wait, and asked again.
	holdChecks = time.Minute
	// holdSlack is added to the limit of such a question, besides the sixteenth
	// that Consul may add
	// (https://developer.hashicorp.com/consul/api-docs/features/blocking).
	holdSlack = 5 * time.Second
	// lookSpacing is the least time between two looks.
	lookSpacing = 100 * time.Millisecond
	// busyAfter answers in a row that came at once, a question is spaced, by up to
	// busyMost: the node has many services, and something else changes.
	busyAfter = 3
	busyMost  = 8 * time.Second
)

// Trouble with the reading of the catalog.
var (
	errNodeUnreadable = errors.New("the token may not read the agent's node, or not the service, so Consul left them out of its answer; want node:read and service:read")
	errRegressed      = errors.New("the catalog's index went backwards")
	// errNoLeader means that nothing can be written to the catalog or read from it.
	errNoLeader = errors.New("the cluster has no leader")
)

// sight is what is known of the agent, and what the catalog has of this process
// under the agent's node. It never changes.
type sight struct {
	err     error     // why Consul can't be used now; nil: it can
	away    bool      // not even the agent answers
	met     time.Time // when Consul was last found to be as it should be
	node    string    // the agent's name; empty: unknown
	address string    // by which others know the agent; empty: unknown
	// entries by ID and checks by check ID; nil: not known.
	entries map[string]*api.AgentService
	checks  map[string]*api.HealthCheck
	// filtered: no check of ours was shown, and some were not to be shown.
	filtered bool
}

// meet asks whether the cluster has a leader, without which calls wait inside of
// Consul beyond the election, and who the agent is.
func (a *Agent) meet(ctx context.Context) (sight, error) {
	select {
	case <-a.doubts: // is being answered
	default:
	}
	err := a.exchange(ctx, a.tell(opRead), func(q *api.QueryOptions) error {
		leader, err := a.cfg.Client.Status().LeaderWithQueryOptions(q)
		if err == nil && leader == "" {
			err = errNoLeader
		}
		return err
	})
	if err != nil {
		return sight{}, err
	}
	now := time.Now()
	node, address, err := a.identify(ctx)
	if err != nil {
		return sight{}, err
	}
	a.compare(ctx, node)
	home, err := a.atHome(node)
	if err != nil {
		a.cfg.CloseIdle()
		return sight{}, err
	}
	return sight{met: now, node: home, address: address}, nil
}

// identify asks the agent for its node's name and address. Where the token may
// not read the agent, its name is that of the node of our checks; else empty.
func (a *Agent) identify(ctx context.Context) (node, address string, err error) {
	err = a.exchange(ctx, a.tell(opRead), func(q *api.QueryOptions) (err error) {
		node, address, err = consul.Self(a.cfg.Client, q)
		return err
	})
	if consul.Denied(err) {
		node, err = a.nodeOfChecks(ctx)
		return node, "", err
	}
	return node, address, err
}

// compare asks over the other connections as well who the agent is. Where the address
// leads to several, a connection that is kept would never tell.
func (a *Agent) compare(ctx context.Context, node string) {
	if node == "" || a.cfg.HoldClient == a.cfg.Client || a.isSeveral() {
		return
	}
	var other string
	err := a.exchange(ctx, a.tell(opRead), func(q *api.QueryOptions) (err error) {
		other, _, err = consul.Self(a.cfg.HoldClient, q)
		return err
	})
	if err == nil && other != node {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.saySeveral(node, other)
	}
}

// nodeOfChecks is the node of the checks that this process has at the agent.
func (a *Agent) nodeOfChecks(ctx context.Context) (node string, err error) {
	err = a.exchange(ctx, a.tell(opRead), func(q *api.QueryOptions) error {
		checks, err := consul.Checks(a.cfg.Client, "Notes == "+strconv.Quote(a.notes()), q)
		for _, c := range checks {
			node = c.Node
		}
		return err
	})
	return node, err
}

// question is one of the two that Consul holds: about the services or the checks
// of the agent's node, each with a filter for those of this process. It costs the
// servers what the node has, whatever the size of a service.
type question struct {
	wait time.Duration
	read func(node string, q *api.QueryOptions) (found func(s *sight), meta *api.QueryMeta, err error)
}

// answer is what came of a question: an error, or a change of the sight.
type answer struct {
	err    error
	change func(s *sight)
}

// follow asks the two questions again and again, and publishes what changes, until
// one fails or there is a doubt. They may be held for most, unless that is 0. up tells
// that both were answered once.
func (a *Agent) follow(ctx context.Context, s sight, most time.Duration) (up bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers := make(chan answer)
	waitServices, waitChecks := holdServices, holdChecks
	if most > 0 { // a proxy cuts them short
		waitServices, waitChecks = min(waitServices, most), min(waitChecks, most)
	}
	ask := func() {
		for n, q := range []question{
			{waitServices, a.readServices},
			{waitChecks, a.readChecks},
		} {
			asking.Go(func() { a.ask(ctx, s.node, q, a.hurries[n], answers) })
		}
	}
	if s.node == "" {
		a.up()
		a.publish(s) // an entry may be written, and tells the node
		if s.node = a.untilLearned(ctx); s.node == "" {
			return true, ctx.Err()
		}
	}
	ask()
	var doubts <-chan struct{} // none are heard before all is known
	for {
		select {
		case <-ctx.Done():
			return up, ctx.Err()
		case <-doubts:
			return up, nil
		case ans := <-answers:
			switch {
			case errors.Is(ans.err, errRegressed):
				return up, nil
			case ans.err != nil:
				return up, ans.err
			}
			ans.change(&s)
			if s.entries != nil && s.checks != nil {
				up, doubts = true, a.doubts
				a.up()
			}
			a.publish(s)
		}
	}
}

// untilLearned waits for the node that an entry was written to; empty if a doubt or
// the context's end comes first.
func (a *Agent) untilLearned(ctx context.Context) string {
	select {
	case <-a.learned:
		return a.homeNode()
	case <-a.doubts:
	case <-ctx.Done():
	}
	return ""
}

// ask asks one question until it fails.
func (a *Agent) ask(ctx context.Context, node string, q question, hurry <-chan struct{}, answers chan<- answer) {
	var index uint64
	for busy := 0; ; {
		asked := time.Now()
		found, next, err := a.askOnce(ctx, node, q, index)
		if errors.Is(err, consul.ErrNewConnection) && ctx.Err() == nil {
			if index = 0; busy > 0 {
				_ = pause.For(ctx, lookSpacing, nil)
			}
			busy++
			continue
		}
		if err == nil && next < index {
			err = errRegressed
		}
		select {
		case answers <- answer{err: err, change: found}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
		if busy++; index == 0 || time.Since(asked) > time.Second {
			busy = 0
		}
		if busy >= busyAfter {
			_ = pause.For(ctx, min(lookSpacing<<min(busy-busyAfter, 10), busyMost), hurry)
		}
		index = next
	}
}

func (a *Agent) askOnce(ctx context.Context, node string, q question, index uint64) (found func(*sight), next uint64, err error) {
	limit := callTimeout
	opts := &api.QueryOptions{}
	op := opRead
	if index > 0 {
		wait := q.wait
		if a.sight().filtered {
			wait = min(wait, holdServices) // rights that come back are no change
		}
		opts.WaitIndex, opts.WaitTime = index, wait
		limit = wait + wait/16 + holdSlack
		op = opHold
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ctx = a.line.Ask(ctx, index > 0)
	found, meta, err := q.read(node, opts.WithContext(ctx))
	if err != nil && errors.Is(context.Cause(ctx), consul.ErrNewConnection) {
		return nil, 0, consul.ErrNewConnection
	}
	if !errors.Is(err, context.Canceled) {
		a.tell(op)(err)
	}
	if err != nil {
		return nil, 0, err
	}
	return found, max(1, meta.LastIndex), nil
}

func (a *Agent) readServices(node string, q *api.QueryOptions) (func(*sight), *api.QueryMeta, error) {
	q.Filter = fmt.Sprintf("Meta[%q] == %q", processKey, a.process)
	list, meta, err := consul.NodeServices(a.cfg.HoldClient, node, q)
	switch {
	case err != nil:
		return nil, nil, err
	case list.Node == nil && meta.ResultsFilteredByACLs:
		return nil, nil, errNodeUnreadable
	}
	entries := map[string]*api.AgentService{}
	for _, e := range list.Services {
		entries[e.ID] = e
	}
	return func(s *sight) {
		s.entries = entries
		if s.address == "" && list.Node != nil {
			s.address = list.Node.Address
		}
	}, meta, nil
}

func (a *Agent) readChecks(node string, q *api.QueryOptions) (func(*sight), *api.QueryMeta, error) {
	q.Filter = "Notes == " + strconv.Quote(a.notes())
	list, meta, err := consul.NodeChecks(a.cfg.HoldClient, node, q)
	if err != nil {
		return nil, nil, err
	}
	checks := map[string]*api.HealthCheck{}
	for _, c := range list {
		checks[c.CheckID] = c
	}
	if meta.LastIndex <= 1 {
		// The servers have checks of their own, so their true index is above 1.
		return func(*sight) {}, meta, nil
	}
	return func(s *sight) {
		s.checks, s.filtered = checks, len(checks) == 0 && meta.ResultsFilteredByACLs
	}, meta, nil
}

// notes mark the checks of this process.
func (a *Agent) notes() string { return "rollcall process " + a.process }
