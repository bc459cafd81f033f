package meshview

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/observability/debug"
)

// crowd is a service of n instances, each of which knows all.
func crowd(t testing.TB, n int) (*reports, []catalog.Entry) {
	t.Helper()
	doc := &document{At: time.Now(), Services: []knownService{{Service: "order", Ready: n}}}
	entries := make([]catalog.Entry, n)
	by := map[string]report{}
	for k := range n {
		i := catalog.Instance{
			ID: fmt.Sprint("order-", k), Service: "order", Node: "node", Host: fmt.Sprintf("10.0.%d.%d", k/250, k%250), Port: 80,
			Weight: 1, State: catalog.StatePassing, Meta: map[string]string{debug.MetaAdmin: "81"},
		}
		entries[k] = catalog.Entry{Instance: i}
		by[i.Host+":81"] = report{doc: doc, at: time.Now()}
		doc.Services[0].Instances = append(doc.Services[0].Instances, knownInstance{ID: i.ID, Addr: i.Addr(), State: "passing"})
	}
	return &reports{by: by}, entries
}

// FuzzStatus gives the page what a process may say, whatever that is.
func FuzzStatus(f *testing.F) {
	for _, seed := range []string{
		`{"version":1,"at":"2026-01-01T00:00:00Z","services":[{"service":"order","panic":true,"calls":{"window_seconds":10,"requests":5,"p99_seconds":1e300},
		"instances":[{"id":"order-0","addr":"10.0.0.0:80","ejected":{"since":"2026-01-01T00:00:00Z"}},{"id":"x","missing_until":"2026-01-01T00:00:00Z"}]}]}`,
		`{"at":"2026-01-01T00:00:00Z","services":[{"service":"user","calls":{"window_seconds":-1,"requests":-5}}]}`,
		`{"at":"9999-12-31T23:59:59Z","services":[null,{"service":"order","instances":[null]}]}`,
		`null`, `{"version":9}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		doc, err := readDocument(text)
		if err != nil {
			return
		}
		now := time.Now()
		r, entries := crowd(t, 3)
		r.by["10.0.0.1:81"] = report{doc: doc, at: now, clockOff: clockOff(doc.At, now, now)}
		draw := func() *Picture {
			d := newDrawing(now, r)
			d.service("order", entries)
			d.tell()
			return &Picture{At: now, Services: d.finish(), Edges: d.calls()}
		}
		p := draw()
		if _, err := json.Marshal(p); err != nil {
			t.Fatalf("the picture can't be written: %v", err)
		}
		if len(p.Services) > maxServices+1 {
			t.Errorf("%d services; want %d at most", len(p.Services), maxServices)
		}
		for _, s := range p.Services {
			for _, i := range s.Instances {
				if i.Age < 0 || len(i.ID) > 256 || len(i.Seen) > maxSeen || len(i.Out) > maxSeen {
					t.Errorf("got %+v; want all of it bounded", i)
				}
				for _, seen := range i.Seen {
					if seen.SnapshotAge < 0 || seen.Latency < 0 {
						t.Errorf("got %+v; want no time below 0", seen)
					}
				}
			}
		}
		for _, e := range p.Edges {
			if !(e.Rate >= 0) || !(e.Failed >= 0) || e.P50 < 0 || e.P99 < 0 {
				t.Errorf("got %+v; want nothing below 0", e)
			}
		}
		diff(draw(), p)
		diff(&Picture{}, p)
		diff(p, &Picture{})
	})
}
