package gateway

import (
	"net/http"
	"slices"

	"github.com/rollcall-mesh/rollcall/services/gateway/routing"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// maxIndexed is how many routes the page at / lists.
const maxIndexed = 100

var indexPage = web.Index{Title: "gateway", Heading: "What is here", Key: "routes", None: "No path leads anywhere so far."}

// isIndex reports whether a request that no route has is for the page at /, which says
// what else there is.
func isIndex(r *http.Request) bool {
	return r.URL.EscapedPath() == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// writeIndex lists the prefixes that lead somewhere for the request's host. Whose they
// are is nobody's business outside.
func writeIndex(w http.ResponseWriter, r *http.Request, tables ...*routing.Table) {
	host, prefixes := routing.Hostname(r.Host), []string{}
	for _, t := range tables {
		if t == nil {
			continue
		}
		for _, route := range t.Routes {
			if route.Host == "" || route.Host == host {
				prefixes = append(prefixes, route.Prefix)
			}
		}
	}
	slices.Sort(prefixes)
	prefixes = slices.Compact(prefixes)
	w.Header().Set("Cache-Control", "no-store") // routes come and go
	indexPage.Write(w, r, prefixes[:min(len(prefixes), maxIndexed)])
}
