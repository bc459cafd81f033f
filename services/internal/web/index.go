package web

import (
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
)

// index says which pages there are: as HTML to a browser, as JSON to others.
func index(patterns []string) http.Handler {
	var pages []string
	for _, pattern := range patterns {
		if method, path, ok := strings.Cut(pattern, " "); ok && method == http.MethodGet && !strings.HasSuffix(path, "{$}") {
			pages = append(pages, path)
		}
	}
	slices.Sort(pages)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Vary", "Accept")
		header.Set("X-Content-Type-Options", "nosniff")
		// A reader that has gone needs no answer.
		if !strings.Contains(r.Header.Get("Accept"), "text/html") {
			header.Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string][]string{"pages": pages})
			return
		}
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		_ = indexPage.Execute(w, pages)
	})
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>admin port</title>
</head>
<body>
  <h1>Pages of this instance</h1>
  <ul>
    {{- range . }}
    <li><a href="{{ . }}">{{ . }}</a></li>
    {{- end }}
  </ul>
</body>
</html>
`))
