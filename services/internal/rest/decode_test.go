package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/internal/clip"
	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func post(body io.Reader, contentTypes ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/users", body)
	r.Header["Content-Type"] = contentTypes
	return r
}

// wantProblem fails unless err is a problem of the status that says each text.
func wantProblem(t *testing.T, err error, status int, says ...string) {
	t.Helper()
	p, ok := errors.AsType[*problem.Problem](err)
	if !ok || p.Status != status {
		t.Errorf("got %v; want a problem of status %d", err, status)
		return
	}
	for _, text := range says {
		if !strings.Contains(p.Detail, text) {
			t.Errorf("detail %q; want it to say %q", p.Detail, text)
		}
	}
}

func TestDecodeTakesOneObjectOfExactlyTheFields(t *testing.T) {
	for body, want := range map[string]string{
		`{"name":"Dave"}`:                        "Dave",
		" \r\n\t{ \"name\" : \"Dave\" } \n":      "Dave",
		`{"\u006eame":"D\u00e4ve \ud834\udd1e"}`: "Däve 𝄞",
		`{"name":""}`:                            "", // whether it may be empty is not JSON's question
	} {
		name := "unset"
		if err := Decode(post(strings.NewReader(body), "application/json"), Fields{"name": &name}); err != nil || name != want {
			t.Errorf("Decode(%s) = %q, %v; want %q", body, name, err, want)
		}
	}
}

func TestDecodeRefusesEverythingElse(t *testing.T) {
	for _, test := range []struct{ body, says string }{
		{``, "body is empty; want a JSON object with name, a text"},
		{" \n", "body is empty"},
		{`x`, "not JSON"},
		{`{`, "ends too early"},
		{`{"name"`, "ends too early"},
		{`{"name":`, "ends too early"},
		{`{"name":"Dave`, "ends too early"},
		{`{"name":"Dave"`, "ends too early"},
		{`{"name":"Dave",}`, "not JSON"},
		{`{"name":"Dave"]`, "not JSON"},
		{`{"name" "Dave"}`, "not JSON"},
		{`{name:"Dave"}`, "not JSON"},
		{`{1:"Dave"}`, "not JSON"},
		{"{\"name\":\"Da\nve\"}", "not JSON"},
		{"\ufeff{\"name\":\"Dave\"}", "not JSON"},
		{`null`, "not a JSON object"},
		{`"Dave"`, "not a JSON object"},
		{`["Dave"]`, "not a JSON object"},
		{`[`, "not JSON"},
		{`{}`, "the field name is missing"},
		{`{"name":null}`, "the field name is null; want a text"},
		{`{"name":7}`, "the field name is of type number; want a text"},
		{`{"name":true}`, "the field name is of type bool; want a text"},
		{`{"name":["Dave"]}`, "the field name is of type array; want a text"},
		{`{"name":{"name":"Dave"}}`, "the field name is of type object; want a text"},
		{"{\"name\":\"\xff\"}", "the field name is not UTF-8"},
		{`{"name":"Dave","age":7}`, `the field "age" is unknown; want a JSON object with name, a text`},
		{`{"NAME":"Dave"}`, `the field "NAME" is unknown`},
		{`{"":"Dave"}`, `the field "" is unknown`},
		{"{\"\xff\n" + strings.Repeat("é", 100) + `":1}`, "not JSON"},
		{`{"` + strings.Repeat("é", 100) + `":1}`, "é…"},
		{`{"name":"Dave","name":"Eve"}`, "the field name is there twice"},
		{`{"name":"Dave"}{"name":"Eve"}`, "something follows the JSON object"},
		{`{"name":"Dave"} x`, "something follows the JSON object"},
		{`{"name":"Dave"},`, "something follows the JSON object"},
		{`{"name":"Dave"}}`, "something follows the JSON object"},
		{strings.Repeat("[", 60000), "not JSON"},
		{`{"name":` + strings.Repeat("[", 60000), "not JSON"},
	} {
		var name string
		t.Run(clip.To(80, test.body), func(t *testing.T) {
			wantProblem(t, Decode(post(strings.NewReader(test.body), "application/json"), Fields{"name": &name}), 400, test.says)
		})
	}
}

func TestDecodeTakesJSONOnly(t *testing.T) {
	for _, types := range [][]string{
		{"application/json"}, {"Application/JSON"}, {"application/json; charset=utf-8"}, {`application/json;charset="UTF-8"`},
	} {
		var name string
		if err := Decode(post(strings.NewReader(`{"name":"x"}`), types...), Fields{"name": &name}); err != nil {
			t.Errorf("Content-Type %q: %v; want no error", types, err)
		}
	}
	for _, types := range [][]string{
		nil,
		{""},
		{"text/plain"},
		{"text/json"},
		{"application/x-www-form-urlencoded"},
		{"application/problem+json"},
		{"application/jsonx"},
		{"application/json; charset=latin1"},
		{"application/json, text/plain"},
		{"application/json; x"},
		{"application/json", "application/json"},
	} {
		var name string
		err := Decode(post(strings.NewReader(`{"name":"x"}`), types...), Fields{"name": &name})
		wantProblem(t, err, 415)
		if p, ok := errors.AsType[*problem.Problem](err); ok && p.Header.Get("Accept") != "application/json" {
			t.Errorf("Content-Type %q: Accept is %q; want application/json", types, p.Header.Get("Accept"))
		}
	}
	r := post(strings.NewReader("x"), "application/json")
	r.Header.Set("Content-Encoding", "gzip")
	wantProblem(t, Decode(r, Fields{}), 415, "gzip")
}

func TestDecodeReadsUpToMaxBody(t *testing.T) {
	whole := func(size int) string {
		return `{"name":"` + strings.Repeat("x", size-len(`{"name":""}`)) + `"}`
	}
	for _, test := range []struct {
		name   string
		body   io.Reader
		status int
	}{
		{"largest", strings.NewReader(whole(MaxBody)), 200},
		{"one more, told", strings.NewReader(whole(MaxBody + 1)), 413},
		{"one more, not told", iotest.HalfReader(strings.NewReader(whole(MaxBody + 1))), 413},
		{"too large and no JSON", iotest.HalfReader(strings.NewReader(strings.Repeat("x", MaxBody+1))), 413},
		{"broken off", iotest.TimeoutReader(iotest.HalfReader(strings.NewReader(whole(9000)))), 400},
		{"too slow", io.MultiReader(strings.NewReader(`{"na`), iotest.ErrReader(fmt.Errorf("read: %w", os.ErrDeadlineExceeded))), 408},
	} {
		t.Run(test.name, func(t *testing.T) {
			var name string
			err := Decode(post(test.body, "application/json"), Fields{"name": &name})
			if test.status != 200 {
				wantProblem(t, err, test.status)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// The limiter reads the body first, and the same problem comes of it.
func TestDecodeBehindALimiterSaysTheSameOfABody(t *testing.T) {
	limits, err := overload.New(overload.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := limits.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var name string
		if err := Decode(r, Fields{"name": &name}); err != nil {
			problem.Write(w, r, problem.Of(err))
		}
	}))
	for _, test := range []struct {
		name   string
		body   io.Reader
		status int
	}{
		{"whole", strings.NewReader(`{"name":"Dave"}`), 200},
		{"too large, told", strings.NewReader(strings.Repeat(" ", MaxBody+1)), 413},
		{"too large, not told", iotest.HalfReader(strings.NewReader(strings.Repeat(" ", MaxBody+1))), 413},
		{"broken off", iotest.TimeoutReader(iotest.HalfReader(strings.NewReader(`{"name":"Dave"}`))), 400},
		{"too slow", io.MultiReader(strings.NewReader(`{"na`), iotest.ErrReader(fmt.Errorf("read: %w", os.ErrDeadlineExceeded))), 408},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, post(test.body, "application/json")); w.Code != test.status {
				t.Errorf("got %d %s; want %d", w.Code, w.Body, test.status)
			}
		})
	}
}

func TestIDIsAnIntegerFrom1To2To63Minus1(t *testing.T) {
	for _, want := range []int64{1, 9, 10, 101, math.MaxInt64} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetPathValue("user", strconv.FormatInt(want, 10))
		if got, err := ID(r, "user"); got != want || err != nil {
			t.Errorf("ID of %d = %d, %v", want, got, err)
		}
	}
	for _, s := range []string{
		"", "0", "-1", "+1", "01", "1.0", "1e3", "0x1", "1_000", " 1", "1 ", "abc", "1/2", "١", "１", "\xff", "9223372036854775808",
		strings.Repeat("9", 1000),
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetPathValue("user", s)
		_, err := ID(r, "user")
		wantProblem(t, err, 400, "the user in the path is", "want an integer from 1 to 9223372036854775807")
	}
}

// FuzzDecode: whatever comes, the error is a problem for the sender, and what is
// taken means the same to encoding/json.
func FuzzDecode(f *testing.F) {
	for _, body := range []string{`{"name":"Dave"}`, `{"name":"a","name":"b"}`, `{"NAME":1}`, "{\"name\":\"\xff\"}", `{"name":"x"} {}`, `[`, `{"\u006eame":"\ud800"}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var name string
		err := Decode(post(strings.NewReader(string(body)), "application/json"), Fields{"name": &name})
		if err != nil {
			if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Status < 400 || p.Status > 499 || p.Detail == "" {
				t.Errorf("Decode(%q) = %v; want a problem of 4xx", body, err)
			}
			return
		}
		var members map[string]*string
		if err := json.Unmarshal(body, &members); err != nil || len(members) != 1 || members["name"] == nil || *members["name"] != name {
			t.Errorf("Decode(%q) = %q; encoding/json has %v, %v", body, name, members, err)
		}
	})
}

// FuzzID: what is taken is the number's one and only spelling.
func FuzzID(f *testing.F) {
	for _, s := range []string{"1", "0", "01", "-1", "9223372036854775807", "9223372036854775808", "a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := parseID(s)
		if err == nil && (id < 1 || strconv.FormatInt(id, 10) != s) {
			t.Errorf("parseID(%q) = %d", s, id)
		}
		if n, parseErr := strconv.ParseInt(s, 10, 64); err != nil && parseErr == nil && n > 0 && strconv.FormatInt(n, 10) == s {
			t.Errorf("parseID(%q) = %v; want %d", s, err, n)
		}
	})
}
