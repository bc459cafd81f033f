package consultest

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

// managementToken may do everything, at those servers that have ACLs.
const managementToken = "00000000-0000-4000-8000-000000000001"

// acl is what the servers know of tokens. While it is off, everybody may do
// everything.
type acl struct {
	on     bool
	rights map[string][]string // by token
}

// Tokens switches the servers' ACLs on, if they are not, and adds tokens that
// may register and watch every service: service:write and node:read. Without a
// token one may nothing from then on. Client has a token that may everything,
// and ClientWith another.
//
// The agent writes an entry to the catalog with the token that it was
// registered with. What that token may not, or no longer, is given up, as in
// Consul: the call is answered with 200, and the catalog stays as it was until
// there is another change of the entry, or Sync, with a token that may. An
// entry that is registered again gets the new token; what was given up is not
// written by that. Only deregistering needs no token of the entry's.
func (a *Agent) Tokens(tokens ...string) {
	for _, t := range tokens {
		a.Token(t, "service:write", "node:read")
	}
}

// Token is Tokens for one token with other rights: some of service:read,
// service:write (which implies service:read), node:read, agent:read, key:read and
// key:write, each on everything. They replace those that it has.
func (a *Agent) Token(token string, rights ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.acl.on {
		a.acl = acl{on: true, rights: map[string][]string{}}
	}
	a.acl.rights[token] = rights
	a.notify()
}

// DeleteToken is a token that there is no more: a call with it is answered with
// 403. (A client agent of Consul's goes on to accept it for calls to the agent
// itself, for up to 30 s; here none does.)
func (a *Agent) DeleteToken(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.acl.rights, token)
	a.notify()
}

// ClientWith is Client with another token; "" means none.
func (a *Agent) ClientWith(token string) *api.Client { return client(a.HTTPClient(), token) }

func tokenOf(r *http.Request) string {
	if t := r.Header.Get("X-Consul-Token"); t != "" {
		return t
	}
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return t
	}
	return r.URL.Query().Get("token")
}

// known reports whether the token is one of the servers', or none at all.
func (a *acl) known(token string) bool {
	_, ok := a.rights[token]
	return ok || !a.on || token == "" || token == managementToken
}

// may reports whether the token has the right.
func (a *acl) may(token, right string) bool {
	if !a.on || token == managementToken {
		return true
	}
	has := a.rights[token]
	return slices.Contains(has, right) || right == "service:read" && slices.Contains(has, "service:write")
}

var errNoToken = &httpError{http.StatusForbidden, "ACL not found"}

// permit returns the error of a request whose token lacks the right on what is
// named.
func (a *acl) permit(r *http.Request, right, name string) error {
	token := tokenOf(r)
	if a.may(token, right) {
		return nil
	}
	who, hint := "anonymous token", ". The anonymous token is used implicitly when a request does not specify a token."
	if token != "" {
		id := sha256.Sum256([]byte(token))
		who, hint = fmt.Sprintf("token with AccessorID '%x-%x-%x-%x-%x'", id[:4], id[4:6], id[6:8], id[8:10], id[10:16]), ""
	}
	return &httpError{http.StatusForbidden, fmt.Sprintf("Permission denied: %s lacks permission '%s' on %q%s", who, right, name, hint)}
}

// sees reports whether the request's token may read all of that.
func (a *acl) sees(r *http.Request, rights ...string) bool {
	token := tokenOf(r)
	return !slices.ContainsFunc(rights, func(right string) bool { return !a.may(token, right) })
}

// partly is an answer from which something was left out for want of rights. An
// anonymous caller isn't told, nor is one that the streaming backend answers.
func (a *Agent) partly(r *http.Request, q query, ans answer) answer {
	if tokenOf(r) != "" && !q.streaming {
		ans.header.Set("X-Consul-Results-Filtered-By-Acls", "true")
	}
	return ans
}
