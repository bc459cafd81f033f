package registration

import (
	"errors"
	"fmt"
	"time"
)

// moveAfter is for how long the agent that entries were written to may not be met
// while another one answers, before entries are written to that: less than the
// default TTL, so that heartbeats do not run out meanwhile.
const moveAfter = 20 * time.Second

// ErrSeveralAgents is the trouble, wrapped, of a process whose address of Consul
// leads to more than one agent, by a balancer or a Kubernetes Service. An entry
// belongs to the agent that it was written to, and only that one takes its
// heartbeats.
var ErrSeveralAgents = errors.New("the address of Consul leads to several agents: give the address of one of them, best the one on this host")

// atHome returns the node that entries are written to, and an error while the
// agent that answers is another's. The first one met is home. When home was not met
// for moveAfter, the agent that answers is.
func (a *Agent) atHome(node string) (home string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if node == "" {
		return a.home, nil
	}
	if a.home == "" || node == a.home {
		a.home, a.homeSeen = node, now
		return node, nil
	}
	a.saySeveral(a.home, node)
	if now.Sub(a.homeSeen) < moveAfter {
		return "", fmt.Errorf("%w; entries are at node %s, and node %s answers", ErrSeveralAgents, a.home, node)
	}
	a.home, a.homeSeen = node, now
	return node, nil
}

// saySeveral says once that two agents answer. The caller holds mu.
func (a *Agent) saySeveral(home, other string) {
	if a.several {
		return
	}
	a.several = true
	a.cfg.Log.Error("Consul's address leads to several agents, or its agent was replaced: give the address of one agent, best the one on this host; an entry belongs to the agent that it was written to",
		"written_to", home, "answers", other)
}

// isSeveral reports whether the address leads to several agents, as far as was seen.
func (a *Agent) isSeveral() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.several
}

// homeNode returns the node that entries are written to; empty: unknown.
func (a *Agent) homeNode() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.home
}

// homeAnswered notes that the agent at home knows an entry of ours.
func (a *Agent) homeAnswered() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.homeSeen = time.Now()
}
