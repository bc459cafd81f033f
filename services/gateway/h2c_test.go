package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// h2c returns a client that speaks HTTP/2 without TLS, from the first byte on
// ("prior knowledge", RFC 9113, section 3.3).
func (d *door) h2c() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	d.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestH2CStreamsBothWaysAtOnceWithTrailers(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		w.Header().Set("Trailer", "X-Sum")
		for in := bufio.NewReader(r.Body); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			fmt.Fprint(w, "echo "+line)
			_ = control.Flush()
		}
		w.Header().Set("X-Sum", r.Trailer.Get("X-Check")+" back")
	})
	body, feed := io.Pipe()
	r := d.request(http.MethodPost, "/users/x", body, "TE", "trailers")
	r.Trailer = http.Header{"X-Check": nil}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		fmt.Fprintln(feed, "one")
	}()
	resp, err := d.h2c().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.Header.Get("X-Served-By") != "user-1" {
		t.Fatalf("got %s %s %v; want HTTP/2 by user-1", resp.Proto, resp.Status, resp.Header)
	}
	await(t, "the first line to be sent", sent)
	out := bufio.NewReader(resp.Body)
	for _, word := range []string{"one", "two"} {
		if word != "one" {
			fmt.Fprintln(feed, word)
		}
		if line, err := out.ReadString('\n'); line != "echo "+word+"\n" {
			t.Fatalf("got %q, %v; want the echo of %s", line, err, word)
		}
	}
	r.Trailer.Set("X-Check", "abc")
	feed.Close()
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
	if got := resp.Trailer.Get("X-Sum"); got != "abc back" {
		t.Errorf("the trailer is %q; want what the service made of ours", got)
	}
}

func TestH2CRequestsShareAConnection(t *testing.T) {
	const requests = 20
	var together sync.WaitGroup
	together.Add(requests)
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait() // none is answered before all are here
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For"), " ", r.URL.Path)
	})
	client := d.h2c()
	var asking sync.WaitGroup
	for n := range requests {
		asking.Go(func() {
			target := fmt.Sprint("/users/", n)
			resp, err := client.Do(d.request(http.MethodGet, target, nil))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, _ := io.ReadAll(resp.Body); string(body) != "127.0.0.1 "+target {
				t.Errorf("%s: got %s %q", target, resp.Status, body)
			}
		})
	}
	asking.Wait()
}

func TestH2CClientThatCancelsEndsTheRequestBehindAndNoOther(t *testing.T) {
	ended := make(chan struct{})
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/users/quick" {
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	})
	client := d.h2c()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := client.Do(d.request(http.MethodGet, "/users/slow", nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	await(t, "the service to learn that the client has left", ended)
	again, err := client.Do(d.request(http.MethodGet, "/users/quick", nil))
	if err != nil {
		t.Fatal(err)
	}
	again.Body.Close()
}

func TestH2CGetsProblemsAndLimitsToo(t *testing.T) {
	d := through(t, options{}, func(http.ResponseWriter, *http.Request) { t.Error("the service was asked") })
	client := d.h2c()
	for _, tc := range []struct {
		target, header string
		status         int
	}{
		{"/orders/1", "", http.StatusServiceUnavailable}, // nobody offers it
		{"/nobody", "", http.StatusNotFound},
		{"/users/1", strings.Repeat("q", 17<<10), http.StatusRequestHeaderFieldsTooLarge},
	} {
		resp, err := client.Do(d.request(http.MethodGet, tc.target, nil, "X-Large", tc.header))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.status || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %s %s; want a %d problem", tc.target, resp.Status, resp.Header.Get("Content-Type"), tc.status)
		}
	}
}
