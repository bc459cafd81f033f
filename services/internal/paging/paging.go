// Package paging reads which page of a list a request asks for, and says where
// the next one is.
//
// The cursor, after, is the ID of the last row that the caller has seen: a page
// is the rows with the next higher IDs. So rows that come or go between two
// pages neither repeat nor hide another one, and the last page costs no more
// than the first. It has no state and is safe for any number of goroutines.
package paging

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/rollcall-mesh/rollcall/internal/clip"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// Most is the longest page, and how long one is if nothing is said.
const Most = 100

// Page says which part of a list is asked for.
type Page struct {
	// After is the ID that the page begins after. 0 means the beginning.
	After int64
	// Limit is how many the page has at most, from 1 to Most.
	Limit int
}

// Read returns the page that the query of r asks for. A parameter that is
// unknown, is there twice, or has no value that can be taken is a 400 problem
// that names it: a caller who sends one means something that we would not do.
func Read(r *http.Request) (Page, error) {
	page := Page{Limit: Most}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Page{}, badRequest("the query %s can't be read; want after and limit, as in ?after=102&limit=10", strconv.QuoteToGraphic(clip.To(80, r.URL.RawQuery)))
	}
	for name, values := range query {
		var most int64
		switch name {
		case "after":
			most = 1<<63 - 1
		case "limit":
			most = Most
		default:
			return Page{}, badRequest("the parameter %s is unknown; want after or limit", strconv.QuoteToGraphic(clip.To(80, name)))
		}
		if len(values) != 1 {
			return Page{}, badRequest("the parameter %s is there %d times; want it once", name, len(values))
		}
		n, ok := parse(values[0], most)
		if !ok {
			return Page{}, badRequest("the parameter %s is %s; want an integer from 1 to %d", name, strconv.QuoteToGraphic(clip.To(80, values[0])), most)
		}
		if name == "after" {
			page.After = n
		} else {
			page.Limit = int(n)
		}
	}
	return page, nil
}

// Cut returns the first limit rows of what was found, and whether there were
// more: whoever looks for one row more than the page has knows of the next one.
func Cut[T any](found []T, limit int) (rows []T, more bool) {
	if len(found) <= limit {
		return found, false
	}
	return found[:limit:limit], true
}

// LinkNext names, in a Link of RFC 8288, the page that begins after the row
// last. The path is that of the list, as clients know it.
func LinkNext(w http.ResponseWriter, path string, last int64, limit int) {
	w.Header().Set("Link", fmt.Sprintf(`<%s?after=%d&limit=%d>; rel="next"`, path, last, limit))
}

// parse reads decimal digits without a sign or a leading zero.
func parse(s string, most int64) (int64, bool) {
	if s == "" || s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n <= most
}

func badRequest(format string, args ...any) error {
	return problem.New(http.StatusBadRequest, format, args...)
}
