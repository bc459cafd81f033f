package watch

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
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
			l := newLoop(&Watcher{cfg: cfg}, &follower{service: "order", feed: catalog.NewFeed("order")})
			b.ReportAllocs()
			for k := 0; b.Loop(); k++ {
				entries[0].Service.Port = 1 + k%1000
				l.judge(answer{kind: block, entries: entries, meta: api.QueryMeta{LastIndex: uint64(k + 1)}})
			}
		})
	}
}

// BenchmarkAudit is what a question about an idle service costs a real Consul,
// by the size of the service. A server's own time is its CPU time: see
// docs/explanation/watching.md.
func BenchmarkAudit(b *testing.B) {
	if testing.Short() {
		b.Skip("starts a real Consul")
	}
	client := consultest.Real(b).Client()
	for _, size := range []int{1, 500, 5000} {
		service := fmt.Sprint("of-", size)
		seed(b, client, service, size)
		for name, k := range map[string]kind{"audit": audit, "scan": scan} {
			b.Run(fmt.Sprint(name, "/", size), func(b *testing.B) {
				w, err := New(Config{Client: client})
				if err != nil {
					b.Fatal(err)
				}
				defer w.Close()
				for b.Loop() {
					if a := w.ask(b.Context(), service, question{kind: k}); a.err != nil || a.meta.LastIndex == 0 || len(a.entries) > 0 {
						b.Fatalf("got %+v; want an index and nothing else", a)
					}
				}
			})
		}
	}
}

// seed registers instances on nodes of their own, some twenty at a time.
func seed(b *testing.B, client *api.Client, service string, count int) {
	b.Helper()
	var ops api.TxnOps
	for n := range count {
		id := fmt.Sprint(service, "-", n)
		ops = append(ops,
			&api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: id, Address: "10.0.0.1"}}},
			&api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: id, Service: api.AgentService{ID: id, Service: service, Port: 80}}},
			&api.TxnOp{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{Node: id, CheckID: id, Status: api.HealthPassing, ServiceID: id}}})
		if len(ops) < 60 && n < count-1 {
			continue
		}
		if ok, answer, _, err := client.Txn().Txn(ops, nil); err != nil || !ok {
			b.Fatalf("seed: %v %v", answer, err)
		}
		ops = nil
	}
}
