package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// withoutH2C returns the header without an offer to go on in HTTP/2 (h2c in
// Upgrade, HTTP2-Settings, and what Connection says of them). A backend that took
// it would speak to the client past our routes and without us; and RFC 9113,
// section 3.1, has done away with it. Other upgrades stay, and so does HTTP/2
// from the first byte on, which our own server speaks. The header that came is
// not changed.
func withoutH2C(in http.Header) http.Header {
	_, settings := in["Http2-Settings"]
	offered := list(in["Upgrade"])
	others := slices.DeleteFunc(slices.Clone(offered), func(protocol string) bool {
		name, _, _ := strings.Cut(protocol, "/")
		return strings.EqualFold(name, "h2c")
	})
	if !settings && len(others) == len(offered) {
		return in
	}
	out := in.Clone()
	delete(out, "Http2-Settings")
	setList(out, "Upgrade", others)
	setList(out, "Connection", slices.DeleteFunc(list(in["Connection"]), func(option string) bool {
		return strings.EqualFold(option, "HTTP2-Settings") || len(others) == 0 && strings.EqualFold(option, "Upgrade")
	}))
	return out
}

// list returns the members of a comma-separated list (RFC 9110, section 5.6.1)
// that may be spread over several lines.
func list(lines []string) []string {
	var members []string
	for _, line := range lines {
		for member := range strings.SplitSeq(line, ",") {
			if member = strings.Trim(member, " \t"); member != "" {
				members = append(members, member)
			}
		}
	}
	return members
}

func setList(h http.Header, name string, members []string) {
	if len(members) == 0 {
		delete(h, name)
		return
	}
	h[name] = []string{strings.Join(members, ", ")}
}
