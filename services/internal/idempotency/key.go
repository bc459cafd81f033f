// Package idempotency answers a request that is sent again as it was answered
// the first time: the Idempotency-Key of draft-ietf-httpapi-idempotency-key-header.
//
// [Read] takes the key from a request; [Do] does a keyed request at most once
// and keeps its answer in the same SQLite transaction; [Find] looks for an
// answer that was kept. It has no state of its own and is safe for any number
// of goroutines.
package idempotency

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/dunglas/httpsfv"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

const (
	// Header of a request has its key.
	Header = "Idempotency-Key"
	// ReplayedHeader marks an answer that was given before: "true".
	ReplayedHeader = "Idempotency-Replayed"
	// MaxLength is the length of the longest key, in characters, without its
	// quotation marks.
	MaxLength = 255
)

// Request says which request one is. The zero value has no key: each such
// request is another one.
type Request struct {
	// Key as it is compared: without quotation marks. Empty means none.
	Key string
	// Scope is the method and the path, or the name of a gRPC method: one key in
	// two scopes is two keys.
	Scope string
	// Digest is the SHA-256 of the body's bytes, as they were sent.
	Digest [sha256.Size]byte
}

// Keyed reports whether there is a key.
func (r Request) Keyed() bool { return r.Key != "" }

// Read returns which request r is, whose body's bytes are given. A key that
// can't be taken is a 400 problem that names the header.
func Read(r *http.Request, body []byte) (Request, error) {
	return Of(r.Header[Header], r.Method+" "+r.URL.Path, body)
}

// Of is Read for any protocol: the keys that a request came with (nil: without
// any), and what it asks for, its scope and its body.
func Of(values []string, scope string, body []byte) (Request, error) {
	if values == nil {
		return Request{}, nil
	}
	key, err := parse(values)
	if err != nil {
		return Request{}, problem.New(http.StatusBadRequest, "the header %s %s", Header, err.Error())
	}
	return Request{Key: key, Scope: scope, Digest: sha256.Sum256(body)}, nil
}

// parse reads the header: a string of RFC 9651, section 3.3.3, without
// parameters, or a bare key, which has neither quotation marks nor commas: with
// them it could be two headers that a proxy made one.
func parse(values []string) (string, error) {
	if len(values) != 1 {
		return "", fmt.Errorf("is there %d times; want it once", len(values))
	}
	key := strings.Trim(values[0], " \t")
	for n := range len(key) {
		if key[n] < ' ' || key[n] > '~' {
			return "", fmt.Errorf("has the byte 0x%02X as its number %d; want printable ASCII", key[n], n+1)
		}
	}
	if strings.HasPrefix(key, `"`) {
		var err error
		if key, err = unquote(key); err != nil {
			return "", err
		}
	} else if strings.ContainsAny(key, `",`) {
		return "", errors.New(`has a quotation mark or a comma; want such a key in quotation marks, as "a,b"`)
	}
	if len(key) == 0 || len(key) > MaxLength {
		return "", fmt.Errorf("is %d characters long; want 1 to %d", len(key), MaxLength)
	}
	return key, nil
}

// unquote reads a string of RFC 9651, section 3.3.3, without parameters.
func unquote(quoted string) (string, error) {
	item, err := httpsfv.UnmarshalItem([]string{quoted})
	if err != nil {
		return "", fmt.Errorf("is no string in quotation marks as RFC 9651, section 3.3.3, has it: %w", err)
	}
	key, ok := item.Value.(string)
	if !ok || len(item.Params.Names()) > 0 {
		return "", errors.New("has parameters behind its closing quotation mark; want nothing there")
	}
	return key, nil
}
