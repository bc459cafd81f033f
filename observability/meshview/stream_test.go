package meshview

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
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

// The limits of a server are for requests that end.
func TestStreamOutlivesTheLimitsOfItsServer(t *testing.T) {
	agent := consultest.New(t)
	addr, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	r := &rig{T: t, agent: agent, fleet: newFleet()}
	r.join("order", 1)
	r.fleet.serve("10.0.0.1:81", says(nil)) // which has a picture sent each second
	view, err := New(Config{Mesh: mesh, Log: quiet(), Transport: r.fleet})
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	const limit = 300 * time.Millisecond
	server := httptest.NewUnstartedServer(view)
	server.Config.ReadTimeout, server.Config.WriteTimeout = limit, limit
	server.Start()
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/mesh/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	began := time.Now()
	for body := bufio.NewReader(res.Body); ; {
		if _, err := body.ReadString('\n'); err != nil {
			t.Fatalf("the stream ended after %s: %v", time.Since(began), err)
		}
		if time.Since(began) > 4*limit {
			return
		}
	}
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
