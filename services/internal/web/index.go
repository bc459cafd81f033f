package web

import (
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
)

// Index is a page that says which paths there are.
type Index struct {
	Title, Heading string
	Key            string // of the paths in JSON
	None           string // said in place of an empty list
}

// Write lists the paths: as HTML to a browser, as JSON to others.
func (x Index) Write(w http.ResponseWriter, r *http.Request, paths []string) {
	header := w.Header()
	header.Set("Vary", "Accept")
	header.Set("X-Content-Type-Options", "nosniff")
	// A reader that has gone needs no answer.
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		header.Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string][]string{x.Key: paths})
		return
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	_ = indexPage.Execute(w, struct {
		Index
		Paths []string
	}{x, paths})
}

// index says which pages of the admin port there are, by the mux's patterns.
func index(patterns []string) http.Handler {
	var pages []string
	for _, pattern := range patterns {
		if method, path, ok := strings.Cut(pattern, " "); ok && method == http.MethodGet && !strings.HasSuffix(path, "{$}") {
			pages = append(pages, path)
		}
	}
	slices.Sort(pages)
	page := Index{Title: "admin port", Heading: "Pages of this instance", Key: "pages"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { page.Write(w, r, pages) })
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{{ .Title }}</title>
</head>
<body>
  <h1>{{ .Heading }}</h1>
  {{- if .Paths }}
  <ul>
    {{- range .Paths }}
    <li><a href="{{ . }}">{{ . }}</a></li>
    {{- end }}
  </ul>
  {{- else }}
  <p>{{ .None }}</p>
  {{- end }}
</body>
</html>
`))
