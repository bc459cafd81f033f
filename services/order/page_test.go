package order

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// next takes the reference out of a Link to the next page.
func next(link string) string {
	target, rel, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if rel != `; rel="next"` {
		return ""
	}
	return target
}

func TestOrdersAreReadPageByPageEachOnceWhileOthersArePlaced(t *testing.T) {
	f := newFixture(t, NewUsers(known, 0))
	for n := range 5 { // with those of another user in between
		for user := int64(1); user <= 2; user++ {
			if _, err := f.store.Place(t.Context(), user, fmt.Sprint(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var items []string
	var pages int
	for path := "/orders/1?limit=2"; path != ""; pages++ {
		resp, got := f.call(t, "GET", path, "")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", path, resp.StatusCode, got)
		}
		items = append(items, strings.Split(strings.Trim(got, "[]\n"), "},{")...)
		path = next(resp.Header.Get("Link"))
		if pages == 0 {
			if path != "/orders/1?after=102&limit=2" {
				t.Errorf("the first page's next is %s", path)
			}
			if _, err := f.store.Place(t.Context(), 1, "late"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := 2 + 5 + 1; pages != 4 || len(items) != want || len(slices.Compact(slices.Sorted(slices.Values(items)))) != want {
		t.Errorf("%d pages of %q; want 4 with %d orders, each once", pages, items, want)
	}
}

func TestOnlyAPageWithMoreBehindItHasALink(t *testing.T) {
	f := newFixture(t, NewUsers(known, 0))
	for _, test := range []struct{ path, want, link string }{
		{"/orders/1", ofAlice, ""},
		{"/orders/1?limit=100", ofAlice, ""},
		{"/orders/1?limit=2", ofAlice, ""},
		{"/orders/1?limit=1", `[{"order_id":101,"item":"Laptop"}]` + "\n", `</orders/1?after=101&limit=1>; rel="next"`},
		{"/orders/1?after=101&limit=1", `[{"order_id":102,"item":"Mouse"}]` + "\n", ""},
		{"/orders/1?after=9223372036854775807", "[]\n", ""},
		{"/orders/3?limit=1", "[]\n", ""},
	} {
		resp, got := f.call(t, "GET", test.path, "")
		if link := resp.Header.Get("Link"); resp.StatusCode != http.StatusOK || got != test.want || link != test.link {
			t.Errorf("%s: %d %q, Link %s; want 200 %q, %s", test.path, resp.StatusCode, got, link, test.want, test.link)
		}
	}
	for n := range 98 { // two are there
		if _, err := f.store.Place(t.Context(), 1, fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
	}
	if resp, got := f.call(t, "GET", "/orders/1", ""); strings.Count(got, "order_id") != 100 || resp.Header.Get("Link") != "" {
		t.Errorf("100 orders: %d and Link %s; want them all, and none", strings.Count(got, "order_id"), resp.Header.Get("Link"))
	}
	if _, err := f.store.Place(t.Context(), 1, "one more"); err != nil {
		t.Fatal(err)
	}
	if resp, got := f.call(t, "GET", "/orders/1", ""); strings.Count(got, "order_id") != 100 || resp.Header.Get("Link") != `</orders/1?after=201&limit=100>; rel="next"` {
		t.Errorf("101 orders: %d and Link %s; want 100, and the next", strings.Count(got, "order_id"), resp.Header.Get("Link"))
	}
}

func TestBadPageIsA400ThatNamesTheParameter(t *testing.T) {
	f := newFixture(t, NewUsers(known, 0))
	for path, says := range map[string]string{
		"/orders/1?limit=101":       `the parameter limit is \"101\"; want an integer from 1 to 100`,
		"/orders/1?after=abc":       `the parameter after is \"abc\"; want an integer from 1 to`,
		"/orders/1?after=1&after=2": `the parameter after is there 2 times`,
		"/orders/1?page=2":          `the parameter \"page\" is unknown`,
		"/orders/abc?limit=101":     `the user in the path`,
	} {
		if resp, got := f.call(t, "GET", path, ""); resp.StatusCode != http.StatusBadRequest || !strings.Contains(got, says) {
			t.Errorf("%s: %d %s; want a 400 that says %s", path, resp.StatusCode, got, says)
		}
	}
}

func TestPageAfterTheLastOrderIsStillProvedByTheEarlierOnes(t *testing.T) {
	f := newFixture(t, NewUsers(away, 0))
	if resp, got := f.call(t, "GET", "/orders/1?after=102", ""); resp.StatusCode != http.StatusOK || got != "[]\n" || resp.Header.Get(DegradedHeader) != "user" {
		t.Errorf("%d %s; want a degraded 200 []", resp.StatusCode, got)
	}
	if resp, got := f.call(t, "GET", "/orders/3?after=102", ""); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("of a user without orders: %d %s; want 503", resp.StatusCode, got)
	}
}

func TestPageOfOrdersIsFoundByTheIndexAndNotSorted(t *testing.T) {
	f := newFixture(t, NewUsers(known, 0))
	var id, parent, unused int
	var plan string
	if err := f.store.db.Reads().QueryRowContext(t.Context(), "EXPLAIN QUERY PLAN "+selectOrders, 1, 1, 1).Scan(&id, &parent, &unused, &plan); err != nil {
		t.Fatal(err)
	}
	if want := "SEARCH orders USING INDEX orders_of_user (user_id=? AND order_id>?)"; plan != want {
		t.Errorf("the plan is %s; want %s", plan, want)
	}
}
