package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/rollcall-mesh/rollcall/services/gateway/routing"
)

// inner makes the path that came the one that the service gets.
func (x *exchange) inner(out *http.Request) {
	if x.route.Rewrite == "" {
		return
	}
	path := x.route.Inner(out.URL.EscapedPath())
	out.URL.Path, out.URL.RawPath = path, ""
	if plain, err := url.PathUnescape(path); err == nil {
		out.URL.Path, out.URL.RawPath = plain, path
	}
}

// outside returns a reference of an answer (Location, Content-Location) as the client
// can use it. A service knows itself by its own name, http://order/orders/1, and by the
// path that it got. What leads elsewhere, or to where no route does, stays as it is.
func (x *exchange) outside(value string) string {
	u, err := url.Parse(value)
	if err != nil || u.Opaque != "" || u.User != nil {
		return value
	}
	switch {
	case u.Host != "" && (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == ""):
		path, ok := x.to(u.Hostname(), u.EscapedPath())
		if !ok {
			return value
		}
		return x.client.proto + "://" + x.client.host + path + tail(u)
	case u.Host == "" && u.Scheme == "" && strings.HasPrefix(value, "/") && x.route.Rewrite != "":
		// A service that heeds X-Forwarded-Prefix has said it as it is outside.
		if under(u.EscapedPath(), x.route.Prefix) {
			return value
		}
		if path, ok := x.route.Outer(u.EscapedPath()); ok {
			return path + tail(u)
		}
	}
	return value
}

// to returns the path under which the client finds what is at a path of a service.
func (x *exchange) to(service, path string) (string, bool) {
	if path == "" {
		path = "/"
	}
	if strings.EqualFold(service, x.service) {
		if outer, ok := x.route.Outer(path); ok {
			return outer, true
		}
	}
	for _, table := range [...]*routing.Table{x.pinned, x.learned} {
		for _, r := range table.Of(strings.ToLower(service)) {
			if r.Host != "" && r.Host != routing.Hostname(x.client.host) {
				continue
			}
			if outer, ok := r.Outer(path); ok {
				return outer, true
			}
		}
	}
	return "", false
}

func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(prefix, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// tail returns what stands behind the path.
func tail(u *url.URL) string {
	text := ""
	if u.RawQuery != "" || u.ForceQuery {
		text = "?" + u.RawQuery
	}
	if u.Fragment != "" {
		text += "#" + u.EscapedFragment()
	}
	return text
}
