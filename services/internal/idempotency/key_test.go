package idempotency

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func keyed(values ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/orders/1?x=y", nil)
	r.Header[Header] = values
	return r
}

func TestQuotedAndBareKeysAreTheSame(t *testing.T) {
	for value, want := range map[string]string{
		"a": "a", `"a"`: "a", " \"a b\" ": "a b", `"a\"\\b,"`: `a"\b,`, "a b;c": "a b;c", `a\b`: `a\b`,
		strings.Repeat("x", MaxLength): strings.Repeat("x", MaxLength), `"` + strings.Repeat("x", MaxLength) + `"`: strings.Repeat("x", MaxLength),
	} {
		got, err := Read(keyed(value), []byte("body"))
		if err != nil || got.Key != want || got.Scope != "POST /orders/1" {
			t.Errorf("Read of %q = %+v, %v; want key %q of POST /orders/1", value, got, err, want)
		}
	}
	if got, err := Read(httptest.NewRequest(http.MethodPost, "/", nil), nil); got.Keyed() || err != nil {
		t.Errorf("Read without the header = %+v, %v; want no key", got, err)
	}
}

func TestKeyThatCannotBeTakenIsA400ThatNamesTheHeader(t *testing.T) {
	for _, values := range [][]string{
		{},
		{""},
		{`""`},
		{" "},
		{"a", "a"},
		{"a, b"},
		{`a"`},
		{`"a`},
		{`"`},
		{`"a"b`},
		{`"a";p=1`},
		{`"\a"`},
		{`"a\`},
		{"é"},
		{"a\tb"},
		{"\x7f"},
		{"\"\x00\""},
		{strings.Repeat("x", MaxLength+1)},
		{`"` + strings.Repeat("x", MaxLength+1) + `"`},
	} {
		got, err := Read(keyed(values...), nil)
		p, ok := errors.AsType[*problem.Problem](err)
		if !ok || p.Status != http.StatusBadRequest || !strings.Contains(p.Detail, Header) || got.Keyed() {
			t.Errorf("Read of %q = %+v, %v; want a 400 that names %s", values, got, err, Header)
		}
	}
}

// FuzzIdempotencyKey: a key that is taken is 1 to 255 printable characters, and
// is taken again, the same, in quotation marks.
func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"a", `"a"`, `"a\"b"`, `"`, "", "a,b", `"a";p`, "é", "a\x00", strings.Repeat("x", MaxLength+1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		key, err := parse([]string{value})
		if err != nil {
			return
		}
		if len(key) < 1 || len(key) > MaxLength || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("parse(%q) = %q", value, key)
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := parse([]string{quoted}); again != key || err != nil {
			t.Errorf("parse(%q) = %q, %v; want %q", quoted, again, err, key)
		}
	})
}
