package gateway

import (
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/rollcall-mesh/rollcall/services/gateway/routing"
)

// maxIndexed is how many routes the page at / lists.
const maxIndexed = 100

// isIndex reports whether a request that no route has is for the page at /, which says
// what else there is.
func isIndex(r *http.Request) bool {
	return r.URL.EscapedPath() == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// writeIndex lists the prefixes that lead somewhere for the request's host: as HTML to
// a browser, as JSON to others. Whose they are is nobody's business outside.
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
	prefixes = prefixes[:min(len(prefixes), maxIndexed)]
	header := w.Header()
	header.Set("Cache-Control", "no-store") // routes come and go
	header.Set("Vary", "Accept")
	header.Set("X-Content-Type-Options", "nosniff")
	// A reader that has gone needs no answer.
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		header.Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string][]string{"routes": prefixes})
		return
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_ = indexPage.Execute(w, prefixes)
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>gateway</title>
</head>
<body>
  <h1>What is here</h1>
  {{- if . }}
  <ul>
    {{- range . }}
    <li><a href="{{ . }}">{{ . }}</a></li>
    {{- end }}
  </ul>
  {{- else }}
  <p>No path leads anywhere so far.</p>
  {{- end }}
</body>
</html>
`))
