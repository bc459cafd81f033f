package paging_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/paging"
)

func read(query string) (paging.Page, error) {
	return paging.Read(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/users", RawQuery: query}})
}

func TestPageIsTheFirstHundredUnlessTheQuerySaysOtherwise(t *testing.T) {
	for query, want := range map[string]paging.Page{
		"":                           {Limit: 100},
		"limit=1":                    {Limit: 1},
		"limit=100":                  {Limit: 100},
		"after=102":                  {After: 102, Limit: 100},
		"limit=7&after=1":            {After: 1, Limit: 7},
		"after=9223372036854775807":  {After: 1<<63 - 1, Limit: 100},
		"%61fter=%31":                {After: 1, Limit: 100},
		"after=9223372036854775807&": {After: 1<<63 - 1, Limit: 100},
		"&&limit=2&&":                {Limit: 2},
	} {
		if got, err := read(query); got != want || err != nil {
			t.Errorf("%q: %+v, %v; want %+v", query, got, err, want)
		}
	}
}

func TestBadParameterIsNamedWithItsValueAndWhatIsWanted(t *testing.T) {
	for query, says := range map[string]string{
		"limit=0":                           `the parameter limit is "0"; want an integer from 1 to 100`,
		"limit=101":                         `the parameter limit is "101"; want an integer from 1 to 100`,
		"limit=-1":                          `the parameter limit is "-1"; want an integer from 1 to 100`,
		"limit=%2B1":                        `the parameter limit is "+1"; want`,
		"limit=":                            `the parameter limit is ""; want`,
		"limit":                             `the parameter limit is ""; want`,
		"limit=1e2":                         `the parameter limit is "1e2"; want`,
		"after=0":                           `the parameter after is "0"; want an integer from 1 to 9223372036854775807`,
		"after=01":                          `the parameter after is "01"; want`,
		"after=abc":                         `the parameter after is "abc"; want`,
		"after=9223372036854775808":         `the parameter after is "9223372036854775808"; want`,
		"after=%D9%A1":                      `the parameter after is "١"; want`,
		"after=1&after=1":                   `the parameter after is there 2 times; want it once`,
		"offset=1":                          `the parameter "offset" is unknown; want after or limit`,
		"Limit=1":                           `the parameter "Limit" is unknown; want after or limit`,
		"after=%zz":                         `the query "after=%zz" can't be read`,
		"after=1;limit=1":                   `the query "after=1;limit=1" can't be read`,
		"after=" + strings.Repeat("é", 100): `"` + strings.Repeat("é", 40) + `…"`,
	} {
		_, err := read(query)
		p, ok := errors.AsType[*problem.Problem](err)
		if !ok || p.Status != http.StatusBadRequest || !strings.Contains(p.Detail, says) {
			t.Errorf("%q: %v; want a 400 that says %s", query, err, says)
		}
	}
}

func TestNextPageIsLinkedAndReadBack(t *testing.T) {
	w := httptest.NewRecorder()
	paging.LinkNext(w, "/orders/1", 102, 2)
	link := w.Header().Get("Link")
	if link != `</orders/1?after=102&limit=2>; rel="next"` {
		t.Fatalf("Link is %s", link)
	}
	target, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	u, err := url.Parse(target)
	if err != nil || u.IsAbs() || u.Path != "/orders/1" {
		t.Fatalf("%v, %v; want a relative reference to /orders/1", u, err)
	}
	if got, err := read(u.RawQuery); got != (paging.Page{After: 102, Limit: 2}) || err != nil {
		t.Errorf("read back: %+v, %v", got, err)
	}
}

// FuzzCursor: a query is refused with a 400 or gives a page within the bounds,
// and the page's own link is read back as the page.
func FuzzCursor(f *testing.F) {
	for _, query := range []string{"", "after=1", "limit=100", "after=102&limit=2", "after=0", "limit=-1", "after=1&after=2", "x=y", "after=%", "after=\x00", "limit=00000000000000000001", "after=9223372036854775808"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		page, err := read(query)
		if err != nil {
			if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Status != http.StatusBadRequest || p.Detail == "" || len(p.Detail) > 1000 {
				t.Errorf("%q: %v; want a short 400 problem", query, err)
			}
			return
		}
		if page.After < 0 || page.Limit < 1 || page.Limit > paging.Most {
			t.Fatalf("%q: %+v is out of bounds", query, page)
		}
		if page.After == 0 {
			return
		}
		if again, err := read(fmt.Sprintf("after=%d&limit=%d", page.After, page.Limit)); again != page || err != nil {
			t.Errorf("%q: %+v, read back as %+v, %v", query, page, again, err)
		}
	})
}
