package catalog_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// oneFeed is a Source of one service.
type oneFeed struct{ *catalog.Feed }

func (oneFeed) KeepAlive(string) {}

func (f oneFeed) Latest(ctx context.Context, _ string) (*catalog.Snapshot, error) {
	return f.Feed.Latest(ctx)
}

func tagged(id string, tags ...string) catalog.Instance {
	i := good()
	i.ID, i.Tags = id, tags
	return i
}

func TestSelectionTakesTheInstancesThatItDescribes(t *testing.T) {
	i := good()
	i.Tags, i.Meta, i.State = []string{"http", "v2", "eu"}, map[string]string{"team": "a"}, catalog.StatePassing
	warning, critical := i, i
	warning.State, critical.State = catalog.StateWarning, catalog.StateCritical
	proxy := i
	proxy.Kind = "connect-proxy"
	grpc, both, plain := tagged("g", catalog.GRPC), tagged("b", catalog.GRPC, catalog.HTTP), tagged("p", "v1")
	for _, c := range []struct {
		name string
		s    catalog.Selection
		i    catalog.Instance
		want bool
	}{
		{"nothing said", catalog.Selection{}, critical, true},
		{"a proxy beside it", catalog.Selection{}, proxy, false},
		{"proxies asked for", catalog.Selection{Kind: "connect-proxy"}, proxy, true},
		{"the service beside proxies", catalog.Selection{Kind: "connect-proxy"}, i, false},
		{"all tags", catalog.Selection{Tags: []string{"v2", "eu"}}, i, true},
		{"one of two tags", catalog.Selection{Tags: []string{"v2", "us"}}, i, false},
		{"tags have a case", catalog.Selection{Tags: []string{"V2"}}, i, false},
		{"none of the tags", catalog.Selection{NotTags: []string{"v1", "us"}}, i, true},
		{"one that it must not have", catalog.Selection{NotTags: []string{"us", "eu"}}, i, false},
		{"meta", catalog.Selection{Meta: map[string]string{"team": "a"}}, i, true},
		{"another value", catalog.Selection{Meta: map[string]string{"team": "b"}}, i, false},
		{"no such key", catalog.Selection{Meta: map[string]string{"zone": "a"}}, i, false},
		{"absent as wanted", catalog.Selection{Meta: map[string]string{"zone": ""}}, i, true},
		{"passing", catalog.Selection{PassingOnly: true}, i, true},
		{"warning", catalog.Selection{PassingOnly: true}, warning, false},
		{"critical", catalog.Selection{PassingOnly: true}, critical, false},
		{"grpc alone for HTTP", catalog.Selection{Protocol: catalog.HTTP}, grpc, false},
		{"both for HTTP", catalog.Selection{Protocol: catalog.HTTP}, both, true},
		{"no protocol for HTTP", catalog.Selection{Protocol: catalog.HTTP}, plain, true},
		{"no protocol for gRPC", catalog.Selection{Protocol: catalog.GRPC}, plain, false},
		{"both for gRPC", catalog.Selection{Protocol: catalog.GRPC}, both, true},
	} {
		if got := c.s.Selects(c.i); got != c.want {
			t.Errorf("%s: got %v; want %v", c.name, got, c.want)
		}
	}
}

func TestSelectionThatCannotBeMeantIsAnError(t *testing.T) {
	for want, s := range map[string]catalog.Selection{
		`Protocol is "HTTP"`:               {Protocol: "HTTP"},
		"Tags has an empty tag":            {Tags: []string{"a", ""}},
		"NotTags has an empty tag":         {NotTags: []string{""}},
		`NotTags has "a", which is in Tag`: {Tags: []string{"a"}, NotTags: []string{"b", "a"}},
		"Meta has an empty key":            {Meta: map[string]string{"": "a"}},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want it to say %s", err, want)
		}
	}
	if err := (catalog.Selection{Protocol: catalog.GRPC, Tags: []string{"a"}, NotTags: []string{"b"}}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsDeselectedLeavesWithTheSnapshotThatSaysSo(t *testing.T) {
	feed := catalog.NewFeed("order")
	source := catalog.Select(oneFeed{feed}, catalog.Selection{NotTags: []string{"canary"}})
	feed.Publish([]catalog.Instance{tagged("a"), tagged("b")}, time.Now())
	first, err := source.Latest(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(first); !slices.Equal(got, []string{"a", "b"}) || first.Deselected() != 0 {
		t.Fatalf("got %v, %d deselected; want a and b", got, first.Deselected())
	}
	feed.Publish([]catalog.Instance{tagged("a", "canary"), tagged("b")}, time.Now())
	if !closed(first.Superseded()) {
		t.Error("not superseded by what deselects an instance")
	}
	next := first.Newest()
	if got := ids(next); !slices.Equal(got, []string{"b"}) || next.Deselected() != 1 || next.Service() != "order" {
		t.Errorf("got %v of %s, %d deselected; want b of order, 1 deselected", got, next.Service(), next.Deselected())
	}
	if latest, err := source.Latest(t.Context(), "order"); err != nil || latest != next {
		t.Errorf("got another snapshot (%v); want one for each of the source's", err)
	}
	if got := ids(first); len(got) != 2 {
		t.Errorf("the first snapshot became %v; want it unchanged", got)
	}
	feed.Close(nil)
	if !closed(next.Superseded()) || next.Newest() != nil {
		t.Error("not superseded by the end of the source")
	}
	if _, err := source.Latest(t.Context(), "order"); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("got %v; want the source's error", err)
	}
}

func TestSelectionsCompose(t *testing.T) {
	feed := catalog.NewFeed("order")
	feed.Publish([]catalog.Instance{tagged("a", "v2", "grpc"), tagged("b", "v2"), tagged("c", "v1")}, time.Now())
	v2 := catalog.Select(oneFeed{feed}, catalog.Selection{Tags: []string{"v2"}})
	http := catalog.Select(v2, catalog.Selection{Protocol: catalog.HTTP})
	v1 := catalog.SelectBy(oneFeed{feed}, func(service string) catalog.Selection {
		return catalog.Selection{Tags: map[string][]string{"order": {"v1"}}[service]}
	})
	for want, source := range map[string]catalog.Source{"a b": v2, "b": http, "c": v1} {
		s, err := source.Latest(t.Context(), "order")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(ids(s), " "); got != want || s.Len()+s.Deselected() != 3 {
			t.Errorf("got %q, %d deselected; want %q of 3", got, s.Deselected(), want)
		}
		trouble := errors.New("no leader")
		feed.Fail(trouble)
		if _, err := s.Freshness(); !errors.Is(err, trouble) {
			t.Errorf("got trouble %v; want the source's", err)
		}
	}
}

func TestReadersOfASelectionShareOneSnapshot(t *testing.T) {
	feed := catalog.NewFeed("order")
	feed.Publish([]catalog.Instance{tagged("a", "v2"), tagged("b")}, time.Now())
	sources := make([]catalog.Source, 4)
	for n := range sources {
		sources[n] = catalog.Select(oneFeed{feed}, catalog.Selection{Tags: []string{"v2"}})
	}
	got := make([]*catalog.Snapshot, 64)
	var readers sync.WaitGroup
	for n := range got {
		readers.Go(func() { got[n], _ = sources[n%4].Latest(t.Context(), "order") })
	}
	readers.Wait()
	for n, s := range got {
		if s == nil || s != got[n%4] {
			t.Fatalf("reader %d got a snapshot of its own", n)
		}
	}
}

func TestLatestThroughASelectionAllocatesNothing(t *testing.T) {
	source := selection(t)
	if n := testing.AllocsPerRun(100, func() { _, _ = source.Latest(t.Context(), "order") }); n != 0 {
		t.Errorf("got %v allocations; want none", n)
	}
}

func selection(t testing.TB) catalog.Source {
	feed := catalog.NewFeed("order")
	set := make([]catalog.Instance, 1000)
	for n := range set {
		set[n] = tagged("a", "v2")
	}
	feed.Publish(set, time.Now())
	source := catalog.Select(catalog.Select(oneFeed{feed}, catalog.Selection{Tags: []string{"v2"}}), catalog.Selection{Protocol: catalog.HTTP})
	if _, err := source.Latest(t.Context(), "order"); err != nil {
		t.Fatal(err)
	}
	return source
}

// BenchmarkLatestSelected is BenchmarkLatest through two selections.
func BenchmarkLatestSelected(b *testing.B) {
	source := selection(b)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := source.Latest(ctx, "order"); err != nil {
			b.Fatal(err)
		}
	}
}
