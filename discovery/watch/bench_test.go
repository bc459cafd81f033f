package watch

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func followed(t testing.TB, cfg Config) *Watcher {
	t.Helper()
	s := &script{answer: steady}
	cfg.Client = s.client(t)
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	for n := range 100 {
		if _, err := w.Latest(t.Context(), fmt.Sprintf("service-%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func TestLatestAllocatesNothing(t *testing.T) {
	for _, cfg := range []Config{{}, {StaleFor: time.Hour}} {
		w, ctx := followed(t, cfg), t.Context()
		if n := testing.AllocsPerRun(1000, func() {
			if _, err := w.Latest(ctx, "service-7"); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("StaleFor %s: got %v allocations a call; want 0", cfg.StaleFor, n)
		}
	}
}

func TestKeepAliveAllocatesNothing(t *testing.T) {
	w := followed(t, Config{})
	if n := testing.AllocsPerRun(1000, func() { w.KeepAlive("service-7") }); n != 0 {
		t.Errorf("got %v allocations a call; want 0", n)
	}
}

func BenchmarkKeepAlive(b *testing.B) {
	w := followed(b, Config{})
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			w.KeepAlive("service-7")
		}
	})
}

func BenchmarkLatest(b *testing.B) {
	w, ctx := followed(b, Config{}), b.Context()
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := w.Latest(ctx, "service-7"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAnswer is what one change among many instances costs, JSON aside.
func BenchmarkAnswer(b *testing.B) {
	for _, n := range []int{3, 100, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			cfg, err := Config{Client: (&script{}).client(b)}.complete()
			if err != nil {
				b.Fatal(err)
			}
			entries := make([]*api.ServiceEntry, n)
			for k := range entries {
				entries[k] = entry(fmt.Sprintf("order-%d", k))
			}
			l := &loop{w: &Watcher{cfg: cfg}, follower: &follower{service: "order", feed: catalog.NewFeed("order")}}
			b.ReportAllocs()
			for k := 0; b.Loop(); k++ {
				entries[0].Service.Port = 1 + k%1000
				l.judge(answer{kind: block, entries: entries, meta: api.QueryMeta{LastIndex: uint64(k + 1)}})
			}
		})
	}
}
