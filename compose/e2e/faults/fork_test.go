package main

import (
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
)

func TestForkLeadsEachConnectionOfAClientToTheNextAgent(t *testing.T) {
	var agents []string
	for _, name := range []string{"a", "b"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
		t.Cleanup(s.Close)
		agents = append(agents, s.Listener.Addr().String())
	}
	f, err := newFork(t.Context(), netip.MustParseAddr("127.0.0.1"), agents[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	fresh := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func() string {
		t.Helper()
		resp, err := fresh.Get("http://" + f.address)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var said []string
	for range 2 {
		said = append(said, ask())
	}
	f.lead(agents...)
	for range 4 {
		said = append(said, ask())
	}
	if want := []string{"a", "a", "a", "b", "a", "b"}; !slices.Equal(said, want) {
		t.Errorf("answers came from %v; want %v", said, want)
	}
	if got, want := f.String(), "2 connections led to "+agents[0]+", 2 connections led to "+agents[1]; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestForkEndsOpenConnectionsWhenItLeadsElsewhereAndWhenItCloses(t *testing.T) {
	agent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	f, err := newFork(t.Context(), netip.MustParseAddr("127.0.0.1"), agent.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []func(){func() { f.lead(agent.Addr().String()) }, f.close} {
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		there, err := agent.Accept()
		if err != nil {
			t.Fatal(err)
		}
		end()
		for _, conn := range []net.Conn{c, there} {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("reading gave %v; want a connection that has ended", err)
			}
			_ = conn.Close()
		}
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error) //nolint:errorlint // as the connection returns it
	return ok && t.Timeout()
}

func TestOnlyErrorsAboutSeveralAgentsAreCounted(t *testing.T) {
	r := &trial{m: judge.Measured{Values: map[string]float64{}}}
	line := func(level, msg string) string {
		return `{"level":"` + level + `","msg":"` + msg + `","service":"order"}`
	}

	const said = "Consul's address leads to several agents"
	r.addTold([]string{line("ERROR", said), "", "no JSON: several agents", line("WARN", said), line("ERROR", "something else")})
	r.addTold([]string{line("ERROR", said), line("ERROR", said+": again")})
	r.addTold([]string{line("INFO", said)})
	if want := map[string]float64{told: 2, toldMost: 2}; !maps.Equal(r.m.Values, want) {
		t.Errorf("got %v; want %v", r.m.Values, want)
	}
}
