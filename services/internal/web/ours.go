package web

import (
	"net/http"
	"strings"

	"github.com/rollcall-mesh/rollcall/observability/logging"
)

// meshPrefix begins the names of headers that are words between services.
const meshPrefix = "Rollcall-"

// isOurs reports whether a header is the mesh's own, so that a request's sender
// has no say in what becomes of it. Case does not matter.
func isOurs(name string) bool {
	return strings.EqualFold(name, logging.RequestIDHeader) || isMeshs(name)
}

func isMeshs(name string) bool {
	return len(name) >= len(meshPrefix) && strings.EqualFold(name[:len(meshPrefix)], meshPrefix)
}

// unlist takes our headers out of a list of names, as Connection and Trailer
// are.
func unlist(h http.Header, list string) {
	for n, value := range h[list] {
		var kept []string
		ours := false
		for name := range strings.SplitSeq(value, ",") {
			if isOurs(strings.TrimSpace(name)) {
				ours = true
				continue
			}
			kept = append(kept, name)
		}
		if ours {
			h[list][n] = strings.Join(kept, ",")
		}
	}
}

// hide takes words between services out of the header or the trailer of an
// answer.
func hide(h http.Header) {
	for name := range h {
		if isMeshs(strings.TrimPrefix(name, http.TrailerPrefix)) {
			delete(h, name)
		}
	}
	unlist(h, "Trailer")
}
