package consul

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
)

// tokenHeader is how Consul is told the token
// (https://developer.hashicorp.com/consul/api-docs#authentication).
const tokenHeader = "X-Consul-Token"

// maxTokenBytes bounds what is taken from a token's file: a token is a UUID, or
// a JWT of some kilobytes at most.
const maxTokenBytes = 64 << 10

// fileToken sends the token that its file holds at the time of each request, so
// that a token is rotated without a restart. The API client itself reads the
// file once. A blocking query that is under way ends with the token it began
// with.
type fileToken struct {
	path string
	last atomic.Pointer[string] // the last good one
	next http.RoundTripper
}

// newFileToken fails if there is no token in the file.
func newFileToken(path string, next http.RoundTripper) (*fileToken, error) {
	f := &fileToken{path: path, next: next}
	token, err := readToken(path)
	if err != nil {
		return nil, err
	}
	f.last.Store(&token)
	return f, nil
}

// RoundTrip reads the file, which costs microseconds: there are some requests a
// second at most. A file that is away or empty is one that is being rotated:
// the last token holds until there is a new one.
func (f *fileToken) RoundTrip(req *http.Request) (*http.Response, error) {
	if token, err := readToken(f.path); err == nil {
		f.last.Store(&token)
	}
	req = req.Clone(req.Context()) // a RoundTripper may not change it
	req.Header.Set(tokenHeader, *f.last.Load())
	return f.next.RoundTrip(req)
}

func readToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("consul: read the token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || len(token) > maxTokenBytes || !printable(token) {
		return "", fmt.Errorf("consul: the token file %s has %d bytes that are no token; want one line of printable ASCII", path, len(data))
	}
	return token, nil
}

// printable reports whether the token can be sent in a header.
func printable(token string) bool {
	return !strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' })
}
