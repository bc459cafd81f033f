package httpmesh

import (
	"net/http"
	"slices"
	"strings"
)

// upgrades reports whether a request asks for another protocol than HTTP/2: that
// is never asked for by ours.
func upgrades(h http.Header) bool {
	return slices.ContainsFunc(tokens(h, "Upgrade"), func(t string) bool { return !isH2C(t) })
}

func isH2C(token string) bool { return strings.EqualFold(token, "h2c") }

// stripH2C takes an offer to switch to HTTP/2 out of a header (RFC 7540, section
// 3.2, which RFC 9113 has taken back): an instance that took it would speak
// frames on a connection which is not made for them.
func stripH2C(h http.Header) {
	offered := tokens(h, "Upgrade")
	if h["Http2-Settings"] == nil && !slices.ContainsFunc(offered, isH2C) {
		return
	}
	left := slices.DeleteFunc(offered, isH2C)
	set(h, "Upgrade", left)
	delete(h, "Http2-Settings")
	set(h, "Connection", slices.DeleteFunc(tokens(h, "Connection"), func(t string) bool {
		return strings.EqualFold(t, "HTTP2-Settings") || len(left) == 0 && strings.EqualFold(t, "Upgrade")
	}))
}

func set(h http.Header, name string, tokens []string) {
	if len(tokens) == 0 {
		delete(h, name)
		return
	}
	h[name] = []string{strings.Join(tokens, ", ")}
}

// tokens returns the members of a header that is a list.
func tokens(h http.Header, name string) (all []string) {
	for _, value := range h[name] {
		for t := range strings.SplitSeq(value, ",") {
			if t = strings.TrimSpace(t); t != "" {
				all = append(all, t)
			}
		}
	}
	return all
}
