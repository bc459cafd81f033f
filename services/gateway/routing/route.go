package routing

import (
	"fmt"
	"strings"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// Route sends what lies under a prefix of the path to a service.
type Route struct {
	// Host is what the client asks for, in lower case and without a port. Empty
	// means any.
	Host string `json:"host,omitempty"`
	// Prefix of the path, whole segments of it: "/users" fits "/users" and
	// "/users/…", and not "/userspace". "/" fits everything.
	Prefix string `json:"prefix"`
	// Service is the name of the service behind it.
	Service string `json:"service"`
	// Rewrite replaces the prefix on the way to the service: "/" takes it off.
	// Empty means that the path goes on as it came.
	Rewrite string `json:"rewrite,omitempty"`
}

// Bounds of what a claim may say.
const (
	maxPrefix = 200
	maxHost   = 180
)

// Key is host and prefix, by which routes are told apart.
func (r Route) Key() string { return r.Host + r.Prefix }

// Inner returns the path that the service gets for one that lies under the prefix. Both
// are escaped.
func (r Route) Inner(path string) string {
	if r.Rewrite == "" {
		return path
	}
	return join(r.Rewrite, path[len(strings.TrimSuffix(r.Prefix, "/")):])
}

// Outer returns the path under which a client finds what is at a path of the service;
// false if nothing leads there.
func (r Route) Outer(inner string) (path string, ok bool) {
	from := r.Rewrite
	if from == "" {
		from = r.Prefix
	}
	rest, ok := cut(inner, from)
	if !ok {
		return "", false
	}
	return join(r.Prefix, rest), true
}

func join(prefix, rest string) string {
	if path := strings.TrimSuffix(prefix, "/") + rest; path != "" {
		return path
	}
	return "/"
}

// cut takes the prefix off a path that lies under it.
func cut(path, prefix string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(path, strings.TrimSuffix(prefix, "/"))
	return rest, ok && (rest == "" || rest[0] == '/' || rest[0] == '?' || rest[0] == '#')
}

// validate says what is wrong with a route: nil if it can be one.
func (r Route) validate() error {
	if err := checkPath("prefix", r.Prefix); err != nil {
		return err
	}
	if r.Rewrite != "" {
		if err := checkPath("rewrite", r.Rewrite); err != nil {
			return err
		}
	}
	if r.Host != "" {
		// What is no port and no IP address in brackets is a name as an instance may have.
		name := catalog.Instance{ID: "x", Host: r.Host, Port: 1, Weight: 1}
		if err := name.Validate(); err != nil || len(r.Host) > maxHost || strings.ContainsAny(r.Host, ":ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			return fmt.Errorf("the host is %q; want a host name of at most %d bytes in lower case, without a port", clip.To(80, r.Host), maxHost)
		}
	}
	return catalog.CheckService(r.Service)
}

func checkPath(what, path string) error {
	bad := func(want string) error {
		return fmt.Errorf("the %s is %q; want %s", what, clip.To(80, path), want)
	}
	if path == "" || len(path) > maxPrefix || path[0] != '/' {
		return bad(fmt.Sprintf("a path of 1 to %d bytes that begins with a slash", maxPrefix))
	}
	if path == "/" {
		return nil
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		switch segment {
		case "", ".", "..":
			return bad("no empty segment, no dots alone, and no slash at the end")
		}
	}
	for _, b := range []byte(path) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte(`%?#,;=*\"<>{}|^&`+"`", b) >= 0 {
			return bad(`printable ASCII, none of it %?#,;=*\"<>{}|^&` + "` or a space")
		}
	}
	return nil
}

// ParseRoute reads a route: "/greet", "api.example.com/v1", and behind it how the path
// goes on: nothing, "strip", or "rewrite=/api". Spaces separate the parts.
func ParseRoute(text, service string) (Route, error) {
	r := Route{Service: service}
	fields := strings.Fields(text)
	if len(fields) == 0 || len(fields) > 2 {
		return r, fmt.Errorf("the route is %q; want a prefix such as /greet, and behind it nothing, strip or rewrite=/path", clip.To(80, text))
	}
	slash := strings.IndexByte(fields[0], '/')
	if slash < 0 {
		return r, fmt.Errorf("the route is %q; want a path that begins with a slash, or a host and such a path", clip.To(80, text))
	}
	r.Host, r.Prefix = fields[0][:slash], fields[0][slash:]
	if len(fields) == 2 {
		rewrite, ok := strings.CutPrefix(fields[1], "rewrite=")
		switch {
		case fields[1] == "strip":
			r.Rewrite = "/"
		case ok && rewrite != "":
			r.Rewrite = rewrite
		default:
			return r, fmt.Errorf("behind the prefix of the route is %q; want nothing, strip or rewrite=/path", clip.To(80, fields[1]))
		}
	}
	return r, r.validate()
}

// ParsePinned reads the routes of the gateway's own settings: "/users=user,
// api.example.com/v1=orders strip". "none" is none at all.
func ParsePinned(text string) ([]Route, error) {
	if strings.TrimSpace(text) == "none" {
		return nil, nil
	}
	var routes []Route
	seen := map[string]bool{}
	for item := range strings.SplitSeq(text, ",") {
		where, target, ok := strings.Cut(item, "=")
		fields := strings.Fields(target)
		if !ok || len(fields) == 0 {
			return nil, fmt.Errorf("the route is %q; want prefix=service, such as /users=user", clip.To(80, strings.TrimSpace(item)))
		}
		r, err := ParseRoute(strings.TrimSpace(where)+" "+strings.Join(fields[1:], " "), fields[0])
		if err != nil {
			return nil, err
		}
		if seen[r.Key()] {
			return nil, fmt.Errorf("%s is there twice; want one service for each", r.Key())
		}
		seen[r.Key()] = true
		routes = append(routes, r)
	}
	return routes, nil
}
