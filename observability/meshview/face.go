package meshview

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

//go:embed assets
var assets embed.FS

var page = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"iso":      func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"clock":    hour,
	"legend":   func() []string { return kinds },
	"words":    words,
	"mark":     mark,
	"why":      reasons,
	"rate":     rate,
	"share":    share,
	"duration": duration,
}).ParseFS(assets, "assets/page.html"))

// secure says what a browser may do with any answer of ours: nothing but show it, with
// scripts, styles and data from here alone. What a name in the mesh has in it, a tag
// or an address, can't run or lead anywhere then.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
		"img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// face is what page.html is made from.
type face struct {
	Picture *Picture
	Events  []Event // oldest first
	Scripts []string
}

// Now is what the script begins with, so that it draws before the stream says anything.
func (f face) Now() any {
	return struct {
		Picture *Picture `json:"picture"`
		Events  []Event  `json:"events"`
	}{f.Picture, f.Events}
}

// Newest events, newest first: as many as one reads without a script.
func (f face) Newest() []Event {
	newest := slices.Clone(f.Events[max(0, len(f.Events)-50):])
	slices.Reverse(newest)
	return newest
}

// servePage answers with the page as it is now: complete for a browser without
// scripts, and what a script goes on from.
func (v *View) servePage(w http.ResponseWriter, r *http.Request) {
	f := face{Picture: v.latest(), Events: v.events(0), Scripts: scripts}
	var b bytes.Buffer
	if err := page.Execute(&b, f); err != nil {
		v.cfg.Log.Error("the page can't be written", "error", err)
		problem.Write(w, r, problem.New(http.StatusInternalServerError, "the page can't be written"))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w)
}

// scripts are loaded at once, not one after the other as they name each other.
var scripts = assetsLike("*.js")

func assetsLike(pattern string) []string {
	found, _ := fs.Glob(assets, "assets/"+pattern) // its only error is a bad pattern
	for i := range found {
		found[i] = path.Base(found[i])
	}
	return found
}

// types of the assets, as they are everywhere: the system's own table may lack them.
var types = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// serveAsset answers with an asset. The page itself is none, and is not found.
func serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	kind, ok := types[path.Ext(name)]
	content, err := assets.ReadFile("assets/" + name)
	if !ok || err != nil {
		problem.Write(w, r, problem.New(http.StatusNotFound, "the page has no asset %q", bounded(name)))
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(content)
}
