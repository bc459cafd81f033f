package meshview

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
)

func TestStreamHasTwoPicturesASecondAtMostAndASignOfLifeInBetween(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.fleet.serve("10.0.0.1:81", says(nil))
		v := r.watch()
		time.Sleep(5 * time.Second)
		if text := v.take(); !strings.HasPrefix(text, "retry: 2000\n\n") || v.status.Load() != http.StatusOK {
			r.Errorf("it begins with %.40q; want when to come back", text)
		}
		for _, name := range []string{"Content-Type", "Cache-Control", "X-Content-Type-Options"} {
			if v.header.Get(name) == "" {
				r.Errorf("the header has no %s: %v", name, v.header)
			}
		}
		for n := 2; n <= 50; n++ {
			r.join("order", n)
			time.Sleep(100 * time.Millisecond)
		}
		if n := strings.Count(v.take(), "event: picture\n"); n < 5 || n > 11 {
			r.Errorf("%d pictures in five seconds of many changes; want two a second at most", n)
		}
	})
	inBubble(t, func(r *rig) { // with nothing to ask and nothing to tell
		v := r.watch()
		time.Sleep(5 * time.Second)
		v.take()
		time.Sleep(time.Minute)
		if n := strings.Count(v.take(), ": still here\n\n"); n < 1 || n > 4 {
			r.Errorf("%d signs of life in a minute; want one after each 15 s of silence", n)
		}
	})
}

func TestViewerThatComesBackGetsWhatWasMissed(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		v := r.watch()
		time.Sleep(5 * time.Second)
		r.join("order", 2)
		time.Sleep(soon)
		ids := regexp.MustCompile(`(?m)^id: (\d+)$`).FindAllStringSubmatch(v.take(), -1)
		if len(ids) != 1 {
			r.Fatalf("got the IDs %v; want one event", ids)
		}
		v.leave()
		r.join("order", 3)
		time.Sleep(15 * time.Second)
		v = r.watch("Last-Event-ID", ids[0][1])
		time.Sleep(soon)
		text := v.take()
		if strings.Contains(text, "order-2 joined") || strings.Count(text, "order-3 joined") != 1 || strings.Count(text, "event: picture") < 1 {
			r.Errorf("want the picture and that order-3 joined, and no more: %s", text)
		}
		if got := r.get("/mesh/events?after=" + ids[0][1]).Body.String(); !strings.Contains(got, "order-3 joined") || strings.Contains(got, "order-2 joined") {
			r.Errorf("GET /mesh/events has %s; want what happened after", got)
		}
		if got := r.get("/mesh/events?after=99999999999999999").Body.String(); got != "[]\n" {
			r.Errorf("GET /mesh/events after all has %s; want an empty list", got)
		}
		for _, path := range []string{"/mesh/events?after=x", "/mesh/events?after=-1"} {
			if w := r.get(path); w.Code != http.StatusBadRequest {
				r.Errorf("GET %s: %d; want 400", path, w.Code)
			}
		}
		if w := r.get("/mesh/stream", "Last-Event-ID", "x"); w.Code != http.StatusBadRequest {
			r.Errorf("Last-Event-ID x: %d; want 400", w.Code)
		}
	})
}

func TestNumbersOfALaterProcessAreHigher(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.join("order", 1)
		r.view.latest()
		time.Sleep(time.Hour)
		another, err := New(r.view.cfg)
		if err != nil {
			r.Fatal(err)
		}
		defer another.Close()
		if was, is := r.view.latest().Seq, another.latest().Seq; was >= is {
			r.Errorf("the number of the later process is %d; want more than %d", is, was)
		}
	})
}

func TestOneViewerTooManyIsAnswered503AndLeavingMakesRoom(t *testing.T) {
	inBubble(t, func(r *rig) {
		first := r.watch()
		second := r.watch()
		time.Sleep(time.Second)
		third := r.watch()
		<-third.done
		if third.status.Load() != http.StatusServiceUnavailable || third.header.Get("Retry-After") == "" || !strings.Contains(third.take(), "2 viewers") {
			r.Errorf("the third is answered %d with %v; want 503, and when to come again", third.status.Load(), third.header)
		}
		if n := r.view.latest().Viewers; n > 2 {
			r.Errorf("%d viewers", n)
		}
		second.leave()
		fourth := r.watch()
		time.Sleep(time.Second)
		if fourth.status.Load() != http.StatusOK || first.status.Load() != http.StatusOK {
			r.Errorf("answered %d; want 200, since one has left", fourth.status.Load())
		}
	}, func(c *Config) { c.Viewers = 2 })
}

func TestCloseEndsTheStreamsAndMayBeCalledTwice(t *testing.T) {
	inBubble(t, func(r *rig) {
		v := r.watch()
		time.Sleep(time.Second)
		if err := r.view.Close(); err != nil {
			r.Error(err)
		}
		<-v.done
		if err := r.view.Close(); err != nil {
			r.Error(err)
		}
		late := r.watch()
		<-late.done
		if late.status.Load() != http.StatusServiceUnavailable {
			r.Errorf("after Close a stream is answered %d; want 503", late.status.Load())
		}
		if w := r.get("/mesh/picture"); w.Code != http.StatusOK {
			r.Errorf("after Close the picture is answered %d; want the last one", w.Code)
		}
	})
}

// pipes is a listener in a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours, nil
}

// serve serves the view by HTTP/1 and HTTP/2, with the limits of an admin port.
func (r *rig) serve() *pipes {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: r.view, Protocols: protocols, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(p)
	}()
	r.Cleanup(func() {
		server.Close()
		<-done
	})
	return p
}

// The limits of a server are for requests that end.
func TestStreamOutlivesTheLimitsOfItsServer(t *testing.T) {
	for name, set := range map[string]func(*http.Protocols, bool){"HTTP/1": (*http.Protocols).SetHTTP1, "HTTP/2": (*http.Protocols).SetUnencryptedHTTP2} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				protocols := new(http.Protocols)
				set(protocols, true)
				transport := &http.Transport{DialContext: r.serve().dial, Protocols: protocols}
				defer transport.CloseIdleConnections()
				req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://view/mesh/stream", nil)
				if err != nil {
					r.Fatal(err)
				}
				res, err := transport.RoundTrip(req)
				if err != nil {
					r.Fatal(err)
				}
				defer res.Body.Close()
				began := time.Now()
				for body := bufio.NewReader(res.Body); time.Since(began) < 10*time.Minute; {
					if _, err := body.ReadString('\n'); err != nil {
						r.Fatalf("the stream ended after %s: %v", time.Since(began), err)
					}
				}
			})
		})
	}
}

// stall begins a stream, and reads nothing of it.
func (r *rig) stall() {
	conn, err := r.serve().dial(r.Context(), "", "")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte("GET /mesh/stream HTTP/1.1\r\nHost: view\r\n\r\n")); err != nil {
		r.Fatal(err)
	}
}

func TestViewerThatReadsNothingHoldsUpNoClose(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.stall()
		time.Sleep(soon)
		began := time.Now()
		r.view.Close()
		if took := time.Since(began); took > time.Second {
			r.Errorf("Close took %s", took)
		}
	})
}

func TestViewerThatReadsNothingIsCutOff(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.stall()
		viewers := func() int {
			r.join("order", int(time.Now().UnixNano()%200)) // so that there is a new picture
			time.Sleep(soon)
			return r.view.latest().Viewers
		}
		if n := viewers(); n != 1 {
			r.Fatalf("%d viewers; want one", n)
		}
		time.Sleep(takeLimit)
		if n := viewers(); n != 0 {
			r.Errorf("%d viewers; want none, since it reads nothing", n)
		}
	})
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	inBubble(t, func(r *rig) {
		for _, c := range []struct {
			method, path string
			want         int
		}{
			{http.MethodGet, "/mesh/x", http.StatusNotFound},
			{http.MethodGet, "/mesh/../metrics", http.StatusNotFound},
			{http.MethodPost, "/mesh/picture", http.StatusMethodNotAllowed},
			{http.MethodPost, "/mesh/try", http.StatusNotFound}, // it is not switched on
			{http.MethodGet, "/mesh/", http.StatusOK},
			{http.MethodHead, "/mesh/picture", http.StatusOK},
		} {
			w := ask(r.T, r.view, c.method, c.path, "")
			if w.Code != c.want || c.want >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
				r.Errorf("%s %s: %d %s; want %d", c.method, c.path, w.Code, w.Header().Get("Content-Type"), c.want)
			}
		}
	})
}

func TestSettingsThatCantBeAreNamed(t *testing.T) {
	mesh := &discovery.Mesh{}
	for want, cfg := range map[string]Config{
		"meshview: Mesh is nil":             {Log: quiet()},
		"meshview: Log is nil":              {Mesh: mesh},
		"meshview: Viewers is -1":           {Mesh: mesh, Log: quiet(), Viewers: -1},
		"meshview: Linger is -1s":           {Mesh: mesh, Log: quiet(), Linger: -time.Second},
		`meshview: ConsulUI is "consul"`:    {Mesh: mesh, Log: quiet(), ConsulUI: "consul"},
		`meshview: Prometheus is "ftp://x"`: {Mesh: mesh, Log: quiet(), Prometheus: "ftp://x"},
	} {
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v; want %s", err, want)
		}
	}
}
