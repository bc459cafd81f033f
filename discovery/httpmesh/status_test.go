package httpmesh_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// openTo is how many connections there are to each instance of order, by its ID.
func openTo(transport *httpmesh.Transport) map[string]int {
	byID := map[string]int{}
	for key, n := range transport.Connections("order") {
		byID[key.ID] += n
	}
	return byID
}

func wantOpen(t *testing.T, transport *httpmesh.Transport, when string, want map[string]int) {
	t.Helper()
	if got := openTo(transport); !maps.Equal(got, want) {
		t.Errorf("%s: connections are %v; want %v", when, got, want)
	}
}

func TestConnectionsAreCountedFromTheirMakingToTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		leave := make(chan struct{})
		f.add("order", "order-a", func(http.ResponseWriter, *http.Request) { <-leave })
		f.add("order", "order-b", nil)
		f.add("order", "order-c", nil).mode.Store("refuse")
		a := f.instances["order"][0]
		transport := f.transport(httpmesh.Config{TryTimeout: -1})
		wantOpen(t, transport, "before any request", map[string]int{})

		done := make(chan answer)
		for range 3 {
			go func() { done <- send(t, transport, get, "http://order/", nil) }()
			synctest.Wait() // else the next would not wait for the dial at the same instance
		}
		wantOpen(t, transport, "with three requests under way", map[string]int{"order-a": 3})
		close(leave)
		for range 3 {
			<-done
		}
		wantOpen(t, transport, "idle", map[string]int{"order-a": 3})
		time.Sleep(5 * time.Second) // more than IdleTimeout
		synctest.Wait()
		wantOpen(t, transport, "idle for long", map[string]int{"order-a": 0})

		send(t, transport, get, "http://order/", nil)
		f.list("order", f.instances["order"][1:]...)
		synctest.Wait()
		wantOpen(t, transport, "when it has left", map[string]int{})
		f.list("order", f.instances["order"][1], a)
		send(t, transport, get, "http://order/", nil)
		if got := openTo(transport); got["order-c"] != 0 {
			t.Errorf("connections are %v; want none to the one that refuses", got)
		}
	})
}

func TestSharedConnectionIsCountedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("order-a", nil)
	transport := s.transport(httpmesh.Config{})
	for range 3 {
		if a := send(t, transport, get, "https://order/", nil); a.body != "HTTP/2.0" {
			t.Fatalf("got %q, %v; want an answer over HTTP/2", a.body, a.err)
		}
	}
	wantOpen(t, transport, "after three requests over HTTP/2", map[string]int{"order-a": 1})
	for end := time.Now().Add(30 * time.Second); openTo(transport)["order-a"] != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection is counted when it is closed")
		}
		transport.CloseIdleConnections() // the last stream ends a moment after its answer
	}
}

func TestHandshakeThatFailsLeavesNoConnectionInTheCount(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "plain") }))
	defer plain.Close()
	s.list("order-plain", plain.Listener.Addr(), true)
	transport := s.transport(httpmesh.Config{MaxRetries: -1})
	wantWords(t, send(t, transport, post, "https://order/", strings.NewReader("x")), "order-plain untrusted, untrusted")
	wantOpen(t, transport, "after it", map[string]int{"order-plain": 0})
}

func TestRetriesLeftAreThoseOfTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", status(503))
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{Budget: httpmesh.Budget{Ratio: -1, Floor: 0.3}})
		left := func(want int, when string) {
			t.Helper()
			if got := transport.RetriesLeft("order", time.Now()); got != want {
				t.Errorf("%s: got %d retries left; want %d", when, got, want)
			}
		}
		left(3, "before any request")
		wantWords(t, send(t, transport, get, "http://order/", nil), "order-a gateway, order-b ok, ok")
		left(2, "after one retry")
		time.Sleep(11 * time.Second)
		left(3, "when that is forgotten")
	})
}

func TestTriesSayAfterWhatTheyCameAndWhetherBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("refuse")
		f.add("order", "order-b", hang)
		f.add("order", "order-c", status(503))
		f.add("order", "order-d", nil)
		a := send(t, f.transport(httpmesh.Config{MaxRetries: 5}), get, "http://order/", nil)
		var got []string
		for _, try := range a.report.Tries {
			got = append(got, fmt.Sprintf("%s after %q beside %v", try.Instance.ID, try.After, try.Beside))
		}
		want := `order-a after "" beside false, order-b after "unreachable" beside false, order-c after "" beside true, order-d after "gateway" beside true`
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("got %s; want %s", text, want)
		}
	})
}

func TestStatusOfAServiceThatWasNeverAskedForBeginsNothing(t *testing.T) {
	f := newFleet(t)
	f.add("order", "order-a", nil)
	transport := f.transport(httpmesh.Config{})
	if open := transport.Connections("order"); len(open) != 0 || transport.RetriesLeft("order", time.Now()) != 30 || transport.Routes() != 0 {
		t.Errorf("got %v, %d retries left and %d routes; want the budget of a new one, and no route",
			open, transport.RetriesLeft("order", time.Now()), transport.Routes())
	}
}
