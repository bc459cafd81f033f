package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/rollcall-mesh/rollcall/internal/clip"
	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
)

// MaxBody is the size of the largest body that Decode reads, in bytes.
const MaxBody = 64 << 10

// ID returns the path value of the given name, as in "GET /users/{id}". One
// that is no ID is a 400 problem that names it.
func ID(r *http.Request, name string) (int64, error) {
	id, err := parseID(r.PathValue(name))
	if err != nil {
		return 0, problem.New(http.StatusBadRequest, "the %s in the path is %s; want an integer from 1 to %d", name, err.Error(), int64(maxID))
	}
	return id, nil
}

const maxID = 1<<63 - 1

// parseID reads an ID: decimal digits only, no sign and no leading zero, so
// that each ID has one path.
func parseID(s string) (int64, error) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, errors.New(strconv.QuoteToGraphic(clip.To(80, s)))
		}
	}
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || s[0] == '0' {
		return 0, errors.New(strconv.Quote(clip.To(80, s)))
	}
	return id, nil
}

// Fields names the members of a JSON object, each with a pointer to what its
// value is decoded into.
type Fields map[string]any

// Decode reads the request's body: one JSON object with exactly the given
// fields, each once, spelled exactly so, and not null. Otherwise the error is a
// problem that names the field: 415 for another content type, 413 for a body
// over MaxBody, 408 for one that did not come in time, 400 for the rest.
//
// encoding/json alone takes other spellings (NAME), doubled fields, absent ones,
// null, what follows the value, and invalid UTF-8; a caller who sends one of
// these means something that we would not do.
func Decode(r *http.Request, fields Fields) error {
	_, err := DecodeKeyed(r, fields)
	return err
}

// DecodeKeyed is Decode for a request that may have an Idempotency-Key. It says
// which request it is.
func DecodeKeyed(r *http.Request, fields Fields) (idempotency.Request, error) {
	if err := wantJSON(r.Header); err != nil {
		return idempotency.Request{}, err
	}
	body, err := readAll(r)
	if err != nil {
		return idempotency.Request{}, err
	}
	request, err := idempotency.Read(r, body)
	if err != nil {
		return idempotency.Request{}, err
	}
	return request, decode(body, fields)
}

func decode(body []byte, fields Fields) error {
	members, err := object(body, fields)
	if err != nil {
		return err
	}
	for _, name := range fields.names() {
		raw, there := members[name]
		switch {
		case !there:
			return badRequest("the field %s is missing", name)
		case !utf8.Valid(raw):
			return badRequest("the field %s is not UTF-8", name)
		case string(raw) == "null":
			return badRequest("the field %s is null; want %s", name, kind(fields[name]))
		}
		if err := json.Unmarshal(raw, fields[name]); err != nil {
			if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
				return badRequest("the field %s is of type %s; want %s", name, wrong.Value, kind(fields[name]))
			}
			return badRequest("the field %s can't be read: %s", name, err.Error())
		}
	}
	return nil
}

// object splits one JSON object, with nothing after it, into its members.
func object(body []byte, fields Fields) (map[string]json.RawMessage, error) {
	if len(bytes.TrimLeft(body, " \t\r\n")) == 0 {
		return nil, badRequest("the body is empty; want %s", fields)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	opening, err := dec.Token()
	if err != nil {
		return nil, notJSON(err)
	}
	if opening != json.Delim('{') {
		if !json.Valid(body) {
			return nil, badRequest("the body is not JSON")
		}
		return nil, badRequest("the body is not a JSON object; want %s", fields)
	}
	members := make(map[string]json.RawMessage, len(fields))
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, notJSON(err)
		}
		name, ok := key.(string)
		if !ok {
			return nil, badRequest("the body is not JSON")
		}
		if _, known := fields[name]; !known {
			return nil, badRequest("the field %s is unknown; want %s", strconv.QuoteToGraphic(clip.To(80, name)), fields)
		}
		if _, twice := members[name]; twice {
			return nil, badRequest("the field %s is there twice", name)
		}
		members[name] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, notJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, badRequest("something follows the JSON object; want one object and nothing else")
	}
	return members, nil
}

// wantJSON checks the headers that describe the body.
func wantJSON(header http.Header) error {
	unsupported := func(format string, args ...any) error {
		p := problem.New(http.StatusUnsupportedMediaType, format, args...)
		// RFC 9110, section 15.5.16, and the Linked Data Platform's header.
		p.Header = http.Header{"Accept": {"application/json"}, "Accept-Post": {"application/json"}}
		return p
	}
	switch types := header.Values("Content-Type"); {
	case len(types) == 0:
		return unsupported("there is no Content-Type; want application/json")
	case len(types) > 1:
		return unsupported("there are %d Content-Types; want one, application/json", len(types))
	}
	given := header.Get("Content-Type")
	mediaType, params, err := mime.ParseMediaType(given)
	if err != nil || mediaType != "application/json" {
		return unsupported("the Content-Type is %s; want application/json", strconv.QuoteToGraphic(clip.To(80, given)))
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return unsupported("the charset is %s; want utf-8", strconv.QuoteToGraphic(clip.To(80, charset)))
	}
	if coding := header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		p := problem.New(http.StatusUnsupportedMediaType, "the Content-Encoding is %s; want none", strconv.QuoteToGraphic(clip.To(80, coding)))
		p.Header = http.Header{"Accept-Encoding": {"identity"}}
		return p
	}
	return nil
}

// readAll reads the whole body, MaxBody at most.
func readAll(r *http.Request) ([]byte, error) {
	if r.ContentLength > MaxBody {
		return nil, problem.Of(&http.MaxBytesError{Limit: MaxBody})
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, MaxBody))
	if err == nil {
		return body, nil
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, problem.Of(err)
	}
	p := problem.New(http.StatusBadRequest, "the body ended after %d bytes, before its time", len(body))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p = problem.New(http.StatusRequestTimeout, "only %d bytes of the body came in time", len(body))
	}
	p.Cause = err
	return nil, p
}

func badRequest(format string, args ...any) error {
	return problem.New(http.StatusBadRequest, format, args...)
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badRequest("the body is not JSON: it ends too early")
	}
	return badRequest("the body is not JSON: %s", err.Error())
}

// names returns the fields' names in order.
func (f Fields) names() []string {
	names := make([]string, 0, len(f))
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// String says what body is wanted.
func (f Fields) String() string {
	var b strings.Builder
	b.WriteString("a JSON object with ")
	for n, name := range f.names() {
		if n > 0 {
			b.WriteString(" and ")
		}
		fmt.Fprintf(&b, "%s, %s", name, kind(f[name]))
	}
	return b.String()
}

// kind says what a destination takes.
func kind(dst any) string {
	switch dst.(type) {
	case *string:
		return "a text"
	default:
		return fmt.Sprintf("%T", dst)[1:]
	}
}
