package gateway

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// pieces is a body that comes in pieces, and notes how much was asked for first.
type pieces struct {
	left  []string
	first int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.first == 0 {
		p.first = len(b)
	}
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0])
	if p.left[0] = p.left[0][n:]; p.left[0] == "" {
		p.left = p.left[1:]
	}
	return n, nil
}

func TestMemoryOfAKeptBodyFollowsWhatArrives(t *testing.T) {
	sent := strings.Repeat("x", maxKept)
	body := &pieces{left: []string{"", sent[:1], sent[1:100], sent[100:]}}
	got := ""
	h := behind(t, Config{}, func(r *http.Request) (*http.Response, error) {
		for range 2 { // it can be had again
			kept, err := r.GetBody()
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(kept)
			if err != nil {
				t.Fatal(err)
			}
			got = string(text)
		}
		return &http.Response{StatusCode: http.StatusOK, Request: r, Body: http.NoBody}, nil
	})
	r := httptest.NewRequest(http.MethodPost, "/users", body)
	r.ContentLength = maxKept
	h.ServeHTTP(httptest.NewRecorder(), r)
	if got != sent {
		t.Errorf("the transport got %d bytes; want all %d", len(got), len(sent))
	}
	if most := 2 << 10; body.first > most {
		t.Errorf("memory for %d bytes was there before one had come; want at most %d", body.first, most)
	}
}

func TestBodyThatIsNotAsLongAsItSaysIs400(t *testing.T) {
	for _, length := range []int64{3, 5} {
		h := behind(t, Config{}, func(*http.Request) (*http.Response, error) {
			t.Error("the service was asked")
			return nil, errors.New("asked")
		})
		r := httptest.NewRequest(http.MethodPost, "/users", io.MultiReader(strings.NewReader("four")))
		r.ContentLength = length
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusBadRequest {
			t.Errorf("a body of 4 bytes that says %d: got %d; want 400", length, w.Code)
		}
	}
}
