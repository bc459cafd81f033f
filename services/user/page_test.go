package user

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func TestUsersAreReadPageByPage(t *testing.T) {
	server := httptest.NewServer(newHandler(t))
	defer server.Close()
	const alice, bob, carol = `{"id":1,"name":"Alice"}`, `{"id":2,"name":"Bob"}`, `{"id":3,"name":"Carol"}`
	for _, test := range []struct{ path, want, link string }{
		{"/users", alice + "," + bob + "," + carol, ""},
		{"/users?limit=3", alice + "," + bob + "," + carol, ""},
		{"/users?limit=2", alice + "," + bob, `</users?after=2&limit=2>; rel="next"`},
		{"/users?after=2&limit=2", carol, ""},
		{"/users?after=1&limit=1", bob, `</users?after=2&limit=1>; rel="next"`},
		{"/users?after=3", "", ""},
	} {
		resp, got := call(t, server, "GET", test.path, "", nil)
		if link := resp.Header.Get("Link"); resp.StatusCode != http.StatusOK || got != "["+test.want+"]\n" || link != test.link {
			t.Errorf("%s: %d %q, Link %s; want 200 [%s], %s", test.path, resp.StatusCode, got, link, test.want, test.link)
		}
	}
	for n := range 98 { // with the three of the seed, one more than a page
		call(t, server, "POST", "/users", fmt.Sprintf(`{"name":"u%d"}`, n), asJSON)
	}
	if resp, got := call(t, server, "GET", "/users", "", nil); strings.Count(got, `"id"`) != 100 || resp.Header.Get("Link") != `</users?after=100&limit=100>; rel="next"` {
		t.Errorf("of 101 users: %d and Link %s; want 100 and the next", strings.Count(got, `"id"`), resp.Header.Get("Link"))
	}
}

func TestPageOfUsersIsFoundByItsKeyAndNotSorted(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "user.db"))
	var id, parent, unused int
	var plan string
	if err := store.db.Reads().QueryRowContext(t.Context(), "EXPLAIN QUERY PLAN "+selectUsers, 1, 1).Scan(&id, &parent, &unused, &plan); err != nil {
		t.Fatal(err)
	}
	if want := "SEARCH users USING INTEGER PRIMARY KEY (rowid>?)"; plan != want {
		t.Errorf("the plan is %s; want %s", plan, want)
	}
}
