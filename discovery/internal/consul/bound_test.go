package consul_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

func TestAnswerWithoutEndIsCutOffAtItsBound(t *testing.T) {
	const most = 1 << 16
	for name, c := range map[string]struct {
		size   int
		zipped bool
		fits   bool
	}{
		"just fits":       {most, false, true},
		"one byte more":   {most + 1, false, false},
		"endless":         {100 * most, false, false},
		"small, unzipped": {most / 2, true, true},
		"a zip bomb":      {100 * most, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				var out io.Writer = w
				if c.zipped {
					w.Header().Set("Content-Encoding", "gzip")
					zip := gzip.NewWriter(w)
					defer zip.Close()
					out = zip
				}
				_, _ = io.Copy(out, strings.NewReader(strings.Repeat("x", c.size))) // the client may leave
			}))
			defer server.Close()
			pool := &http.Transport{}
			defer pool.CloseIdleConnections()
			client := &http.Client{Transport: consul.Bound(pool, most)}
			resp, err := client.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if c.fits && (err != nil || len(body) != c.size) {
				t.Errorf("got %d bytes and %v; want all %d", len(body), err, c.size)
			}
			if !c.fits && (!errors.Is(err, consul.ErrTooLarge) || len(body) != most || !strings.Contains(err.Error(), fmt.Sprint(most))) {
				t.Errorf("got %d bytes and %v; want %d and ErrTooLarge", len(body), err, most)
			}
		})
	}
}

func TestEveryClientHasTheBound(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		defer zip.Close()
		blank := []byte(strings.Repeat(" ", 1<<20))
		for range consul.MaxAnswer>>20 + 1 {
			if _, err := zip.Write(blank); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	client, closeIdle, err := consul.Open(consul.Config{Address: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer closeIdle()
	body, _, err := client.Snapshot().Save(nil) // the one call that hands out the body as it comes
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if n, err := io.Copy(io.Discard, body); n != consul.MaxAnswer || !errors.Is(err, consul.ErrTooLarge) {
		t.Errorf("got %d bytes and %v; want %d and ErrTooLarge", n, err, consul.MaxAnswer)
	}
}
