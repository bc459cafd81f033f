package gateway_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/services/internal/paging"
)

func TestLinkToTheNextPageLeadsThroughTheGateway(t *testing.T) {
	d := open(t, options{})
	d.serve("user", "user-1", func(w http.ResponseWriter, r *http.Request) {
		page, err := paging.Read(r)
		if err != nil || page.After > 0 {
			fmt.Fprint(w, page, err)
			return
		}
		paging.LinkNext(w, "/users", 2, page.Limit)
	})
	first, _ := d.do(d.request(http.MethodGet, "/users?limit=2", nil))
	link, _, ok := strings.Cut(strings.TrimPrefix(first.Header.Get("Link"), "<"), ">; rel=")
	reference, err := url.Parse(link)
	if !ok || err != nil {
		t.Fatalf("%s, Link %q, %v; want a reference", first.Status, first.Header.Get("Link"), err)
	}
	next := first.Request.URL.ResolveReference(reference)
	if next.Host != first.Request.URL.Host {
		t.Errorf("the next page is at %v; want it at the gateway", next)
	}
	if resp, body := d.do(d.request(http.MethodGet, next.RequestURI(), nil)); resp.StatusCode != http.StatusOK || body != "{2 2} <nil>" {
		t.Errorf("%v: %s %s; want the page after 2", next, resp.Status, body)
	}
}
