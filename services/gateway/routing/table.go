package routing

import (
	"slices"
	"strings"
)

// Table is the routes at one time. It never changes. nil is an empty one.
type Table struct {
	// Routes are those that count, by host and prefix.
	Routes []Route `json:"routes"`
	// Conflicts are the routes that more than one service claims.
	Conflicts []Conflict `json:"conflicts"`
	// Refused are the claims that don't count, the first 100 of them; Refusals is
	// how many there are.
	Refused  []Refusal `json:"refused"`
	Refusals int       `json:"refusals"`
	// Trouble is why the table may be out of date, or the owners are not recorded.
	Trouble []Trouble `json:"trouble"`

	byHost map[string]map[string]Route
}

// Conflict is a route that several services claim.
type Conflict struct {
	Route     string   `json:"route"`
	Owner     string   `json:"owner"`     // who gets its requests; it may have no instance just now
	Claimants []string `json:"claimants"` // by name
}

// Trouble is something that goes on.
type Trouble struct {
	With  string `json:"with"`
	Error string `json:"error"`
}

// NewTable returns a table of these routes.
func NewTable(routes ...Route) *Table {
	t := &Table{Routes: slices.Clone(routes), byHost: map[string]map[string]Route{}}
	slices.SortFunc(t.Routes, func(a, b Route) int { return strings.Compare(a.Key(), b.Key()) })
	for _, r := range t.Routes {
		if t.byHost[r.Host] == nil {
			t.byHost[r.Host] = map[string]Route{}
		}
		t.byHost[r.Host][r.Prefix] = r
	}
	return t
}

// Find returns the route of a request: for its host, else for any, the one with the
// longest prefix. host is as the client sent it, path escaped.
func (t *Table) Find(host, path string) (Route, bool) {
	if t == nil || len(t.byHost) == 0 || path == "" || path[0] != '/' {
		return Route{}, false
	}
	if len(t.byHost) > 1 || t.byHost[""] == nil {
		if r, ok := longest(t.byHost[Hostname(host)], path); ok {
			return r, true
		}
	}
	return longest(t.byHost[""], path)
}

// longest looks up the prefixes that the path has, from the longest on. There are as
// many as a prefix may have bytes, at most.
func longest(byPrefix map[string]Route, path string) (Route, bool) {
	if len(byPrefix) == 0 {
		return Route{}, false
	}
	prefix := path
	if len(prefix) > maxPrefix { // the rest of a segment that was cut goes with the first step
		prefix = prefix[:maxPrefix+1]
		prefix = prefix[:strings.LastIndexByte(prefix, '/')]
	}
	for prefix != "" {
		if r, ok := byPrefix[prefix]; ok {
			return r, true
		}
		prefix = prefix[:strings.LastIndexByte(prefix, '/')]
	}
	r, ok := byPrefix["/"]
	return r, ok
}

// Hostname returns the host that a client asks for without its port, in lower case.
func Hostname(host string) string {
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:colon]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// Of returns the routes to a service.
func (t *Table) Of(service string) []Route {
	var routes []Route
	if t != nil {
		for _, r := range t.Routes {
			if r.Service == service {
				routes = append(routes, r)
			}
		}
	}
	return routes
}

// covers reports whether a claim would take something away from a pinned route: it lies
// at it or under it. One for any host leaves a host that is pinned alone, since pinned
// routes are looked at first.
func covers(pinned, claim Route) bool {
	if pinned.Host != "" && pinned.Host != claim.Host {
		return false
	}
	_, under := cut(claim.Prefix, pinned.Prefix)
	return under
}
