package order

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzUserAnswer: only a 404, and a 200 with a user in it, say something about a
// user.
func FuzzUserAnswer(f *testing.F) {
	f.Add(200, `{"id":1,"name":"Alice"}`)
	f.Add(200, `{"id":0}`)
	f.Add(200, `{"ID":1,"id":2}`)
	f.Add(200, `{"id":1e3}`)
	f.Add(200, `[]`)
	f.Add(200, `null`)
	f.Add(200, `{"id":-1} trailing`)
	f.Add(404, `<html>`)
	f.Add(503, `{"id":1}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		answer, err := readUser(t.Context(), &http.Response{
			StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)),
		})
		id, ok := answer.(int64)
		switch {
		case err != nil && status == http.StatusNotFound:
			t.Errorf("404 %q: %v; want that there is no such user", body, err)
		case err != nil:
		case status != http.StatusOK && status != http.StatusNotFound:
			t.Errorf("%d %q is an answer: %v", status, body, answer)
		case !ok || (id == noUser) != (status == http.StatusNotFound):
			t.Errorf("%d %q: got %v", status, body, answer)
		}
	})
}
