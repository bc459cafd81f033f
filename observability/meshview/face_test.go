package meshview

import (
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// asset is the text of an asset.
func asset(t *testing.T, name string) string {
	t.Helper()
	text, err := assets.ReadFile("assets/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rendered is the page of a picture.
func rendered(t *testing.T, f face) string {
	t.Helper()
	var b strings.Builder
	if err := page.Execute(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// evil sets every text in what p points to, lists of one and what is in them too.
func evil(p reflect.Value, text string) {
	switch v := p.Elem(); v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				evil(v.Field(i).Addr(), text)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		evil(v.Index(0).Addr(), text)
	}
}

func TestTagsInNamesAreTextInThePage(t *testing.T) {
	for _, text := range []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</script><script>alert(1)</script>`, `javascript:alert(1)`} {
		f := face{Picture: &Picture{}, Events: make([]Event, 1)}
		evil(reflect.ValueOf(f.Picture), text)
		evil(reflect.ValueOf(&f.Events[0]), text)
		got := rendered(t, f)
		if n := strings.Count(got, "<script"); n != 2 {
			t.Errorf("the page of a mesh with %q has %d script elements; want its own 2", text, n)
		}
		if strings.Contains(got, "<img src=x") || strings.Contains(got, `href="javascript:`) {
			t.Errorf("%q got into the page as markup", text)
		}
		if !strings.Contains(got, "alert(1)") {
			t.Errorf("%q is nowhere in the page; want it as text", text)
		}
	}
}

func TestPageOfNothingIsAPage(t *testing.T) {
	got := rendered(t, face{Picture: &Picture{}})
	for _, want := range []string{"No picture so far", "Nothing so far.", `<tbody></tbody>`} {
		if !strings.Contains(got, want) {
			t.Errorf("the page of an empty picture lacks %q", want)
		}
	}
	if strings.Contains(got, "be asked") {
		t.Error("the page says that Consul is gone before it has asked")
	}
}

func TestPageWithoutScriptSaysWhatIsKnown(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	got := rendered(t, face{
		Picture: &Picture{
			At: at, Consul: Consul{Since: at, Error: "connection refused"},
			Services: []Service{{Name: "order", Passing: 1, Total: 2, Instances: []Instance{
				{ID: "order-1", State: "critical", Reason: "no heartbeat", Addr: "10.0.0.1:80", Zone: "a"},
			}}},
			Edges: []Edge{{From: "gateway", To: "order", Rate: 12, Failed: 3, P99: 20 * time.Millisecond}},
		},
		Events: []Event{{Seq: 1, At: at, Text: "order-1 joined order"}, {Seq: 2, At: at, Text: "order-1 is critical"}},
	})
	text := regexp.MustCompile(`<script(?s:.*?)</script>|<[^>]*>`).ReplaceAllString(got, "|")
	text = regexp.MustCompile(`[|\s]+`).ReplaceAllString(text, "|")
	for _, want := range []string{
		"Consul|can't|be|asked|since|12:00:00|UTC:|connection|refused.|The", "order|1|of|2|passing", "order-1|critical|no|heartbeat|10.0.0.1:80|a",
		"gateway|order|12/s|25\u00a0%|0/s|–|20\u00a0ms", "order-1|is|critical|12:00:00|UTC|order-1|joined|order",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q in\n%s", want, text)
		}
	}
}

func TestPageBringsNothingThatItsPolicyForbids(t *testing.T) {
	forbidden := map[string]*regexp.Regexp{
		".html": regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+=|<style|javascript:|https?://`),
		".css":  regexp.MustCompile(`(?i)@import|url\(`),
		// What comes from the mesh is never parsed as markup or code.
		".js": regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTML|parseFromString|\beval\b|new Function|setTimeout\(['"\x60]|setAttribute\('style'`),
	}
	checked := 0
	err := fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		for ext, pattern := range forbidden {
			if !strings.HasSuffix(name, ext) {
				continue
			}
			checked++
			if found := pattern.FindString(asset(t, strings.TrimPrefix(name, "assets/"))); found != "" {
				t.Errorf("%s has %q", name, found)
			}
		}
		return nil
	})
	if err != nil || checked < 10 {
		t.Errorf("checked %d assets, %v; want all", checked, err)
	}
}

func TestEveryAnswerLetsABrowserRunNothingElse(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		for path, want := range map[string]int{
			"/mesh/": 200, "/mesh/assets/page.js": 200, "/mesh/picture": 200, "/mesh/events": 200, "/mesh/ask?q=order": 200,
			"/mesh/ask?q=": 400, "/mesh/assets/none.js": 404, "/mesh/none": 404,
		} {
			w := r.get(path)
			if w.Code != want {
				r.Errorf("%s is answered %d; want %d", path, w.Code, want)
			}
			for name, want := range map[string]string{
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
					"img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
				"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			} {
				if got := w.Header().Get(name); got != want {
					r.Errorf("%s: %s is %q; want %q", path, name, got, want)
				}
			}
		}
		if got := r.get("/mesh/").Body.String(); !strings.Contains(got, "<th scope=\"row\">order-1</th>") {
			r.Error("the page lacks order-1")
		}
	})
}

func TestAssetsHaveTheirTypesAndNothingElseIsServed(t *testing.T) {
	for name, want := range map[string]string{
		"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
		"page.html": "", "none.js": "", "../face.go": "", "": "",
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		r.SetPathValue("name", name)
		serveAsset(w, r)
		switch got := w.Header().Get("Content-Type"); {
		case want == "" && w.Code != 404:
			t.Errorf("%q is answered %d; want 404", name, w.Code)
		case want != "" && (w.Code != 200 || got != want):
			t.Errorf("%q is answered %d %s; want 200 %s", name, w.Code, got, want)
		}
	}
}

func TestEveryKindHasAMarkAndAColour(t *testing.T) {
	html, css, js := asset(t, "page.html"), asset(t, "page.css"), asset(t, "words.js")
	shapes := map[string]string{}
	for _, kind := range kinds {
		shape := regexp.MustCompile(`<symbol id="mark-` + kind + `"[^>]*>(.*?)</symbol>`).FindStringSubmatch(html)
		switch {
		case shape == nil:
			t.Errorf("page.html has no symbol for %s", kind)
		case shapes[shape[1]] != "":
			t.Errorf("%s and %s differ by nothing but colour", kind, shapes[shape[1]])
		default:
			shapes[shape[1]] = kind
		}
		if !strings.Contains(css, ".k-"+kind) {
			t.Errorf("page.css has no colour for %s", kind)
		}
		if want := fmt.Sprintf("  %s: '%s',", kind, words(kind)); !strings.Contains(js, want) {
			t.Errorf("words.js lacks %q", want)
		}
	}
}

func TestWorstOfAnInstanceIsItsKind(t *testing.T) {
	for _, tc := range []struct {
		instance Instance
		want     string
	}{
		{Instance{State: "passing", Answered: true}, "passing"},
		{Instance{State: "passing"}, "passing"}, // it has no status to ask for
		{Instance{State: "passing", New: true}, "new"},
		{Instance{State: "passing", New: true, Trouble: "no answer within 1s"}, "silent"},
		{Instance{State: "warning", Trouble: "no answer within 1s"}, "warning"},
		{Instance{State: "critical", New: true}, "critical"},
		{Instance{State: "new"}, "new"}, // it is no state of the catalog, and has its own mark
		{Instance{State: "something else"}, "critical"},
		{Instance{State: "critical", Out: []Out{{By: "a"}}}, "out"},
		{Instance{State: "passing", Missing: true, Out: []Out{{By: "a"}}}, "missing"},
	} {
		if got := kind(tc.instance); got != tc.want {
			t.Errorf("%+v is %s; want %s", tc.instance, got, tc.want)
		}
	}
}

func TestReasonsNameTwoProcessesAndCountTheRest(t *testing.T) {
	i := Instance{Reason: "no heartbeat", Trouble: "refused", OutBy: 14}
	for n := range 10 {
		i.Out = append(i.Out, Out{By: strconv.Itoa(n), Reason: "5 failures"})
	}
	if got, want := reasons(i), "0: 5 failures · 1: 5 failures · 12 more · no heartbeat · refused"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestNumbersAreShortAndHaveUnits(t *testing.T) {
	for got, want := range map[string]string{
		rate(0): "0/s", rate(math.NaN()): "0/s", rate(0.01): "<0.1/s", rate(8.44): "8.4/s", rate(142.3): "142/s", rate(12345): "12.3k/s",
		share(0, 0): "0 %", share(1, 0): "0 %", share(0.01, 100): "<0.1 %", share(3, 100): "3.0 %", share(31, 142): "22 %",
		duration(0): "–", duration(340 * time.Microsecond): "340 µs", duration(4240 * time.Microsecond): "4.2 ms", duration(42 * time.Millisecond): "42 ms",
		duration(1240 * time.Millisecond): "1.2 s", duration(42 * time.Second): "42 s", duration(5 * time.Minute): "5 min",
		duration(3 * time.Hour): "3 h", duration(50 * time.Hour): "2 d",
	} {
		if got = strings.ReplaceAll(got, space, " "); got != want {
			t.Errorf("got %q; want %q", got, want)
		}
	}
}

// By WCAG 2.2: 4.5 for text (1.4.3), 3 for signs and the edges of controls (1.4.11).
func TestColoursHaveEnoughContrast(t *testing.T) {
	css := asset(t, "page.css")
	light, dark, ok := strings.Cut(css, "@media (prefers-color-scheme: dark)")
	dark, _, closed := strings.Cut(dark, "\n}\n")
	if !ok || !closed {
		t.Fatal("page.css has no colours for the dark")
	}
	text := map[string][]string{
		"text":     {"ground", "card", "sunk", "raised"},
		"muted":    {"ground", "card", "sunk"},
		"accent":   {"ground", "card"},
		"on-alarm": {"alarm"}, "on-accent": {"accent"},
	}
	for _, kind := range kinds {
		text[kind] = []string{"card", "ground", "sunk"}
	}
	signs := map[string][]string{"edge": {"ground", "card"}, "accent": {"ground", "card"}}
	themes := map[string]map[string]string{"light": colours(light), "dark": colours(dark)}
	for theme, colours := range themes {
		check := func(pairs map[string][]string, least float64) {
			for _, ink := range slices.Sorted(maps.Keys(pairs)) {
				for _, paper := range pairs[ink] {
					got, err := contrast(colours[ink], colours[paper])
					if err != nil || got < least {
						t.Errorf("%s: --%s on --%s has a contrast of %.2f, %v; want %v", theme, ink, paper, got, err, least)
					}
				}
			}
		}
		check(text, 4.5)
		check(signs, 3)
	}
}

// colours are the variables of a part of a style sheet.
func colours(css string) map[string]string {
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(css, -1) {
		found[m[1]] = m[2]
	}
	return found
}

// contrast is WCAG's ratio of two colours.
func contrast(a, b string) (float64, error) {
	x, err := luminance(a)
	if err != nil {
		return 0, err
	}
	y, err := luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05), err
}

func luminance(colour string) (float64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	if err != nil {
		return 0, fmt.Errorf("the colour %q: %w", colour, err)
	}
	linear := func(c uint64) float64 {
		s := float64(c&255) / 255
		if s <= 0.04045 {
			return s / 12.92
		}
		return math.Pow((s+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n), nil
}
