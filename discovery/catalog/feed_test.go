package catalog_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ctx() context.Context { return context.Background() }

func ids(s *catalog.Snapshot) (ids []string) {
	for i := range s.All() {
		ids = append(ids, i.ID)
	}
	return ids
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestLatestWaitsForTheFirstSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := catalog.NewFeed("order")
		got := make(chan *catalog.Snapshot, 3)
		for range cap(got) {
			go func() {
				s, err := feed.Latest(t.Context())
				if err != nil {
					t.Error(err)
				}
				got <- s
			}()
		}
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("a reader did not wait")
		}
		feed.Publish([]catalog.Instance{good()}, time.Now())
		for range cap(got) {
			if s := <-got; s != feed.Current() || s.Len() != 1 || s.Service() != "order" {
				t.Errorf("got %v; want the snapshot published", s)
			}
		}
	})
}

func TestLatestEndsWithItsContextAndNamesTheTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := catalog.NewFeed("order")
		refused := errors.New("connection refused")
		feed.Fail(refused)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := feed.Latest(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, refused) {
			t.Errorf("got %v; want the deadline and the registry's trouble", err)
		}
	})
}

func TestASnapshotThatIsThereWinsOverAnEndedContext(t *testing.T) {
	feed := catalog.NewFeed("order")
	feed.Publish(nil, time.Now())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := feed.Latest(ctx); err != nil || s.Len() != 0 {
		t.Errorf("got %v, %v; want the empty snapshot", s, err)
	}
}

func TestPublishSupersedesAndSorts(t *testing.T) {
	feed := catalog.NewFeed("order")
	b, a := good(), good()
	b.ID, a.ID = "order-b", "order-a"
	feed.Publish([]catalog.Instance{b}, time.Now())
	first := feed.Current()
	if closed(first.Superseded()) {
		t.Fatal("the latest snapshot is superseded")
	}
	feed.Publish([]catalog.Instance{b, a}, time.Now())
	if !closed(first.Superseded()) {
		t.Error("the first snapshot is not superseded by the second")
	}
	if got := ids(feed.Current()); len(got) != 2 || got[0] != "order-a" {
		t.Errorf("got %v; want order-a, order-b", got)
	}
	if got := ids(first); len(got) != 1 {
		t.Errorf("the first snapshot became %v; want it unchanged", got)
	}
}

func TestFreshnessIsOfTheSetAndNotOfTheSnapshot(t *testing.T) {
	feed := catalog.NewFeed("order")
	feed.Publish([]catalog.Instance{good()}, time.Now())
	s := feed.Current()
	proven := time.Now()
	feed.Confirm(proven)
	trouble := errors.New("no leader")
	feed.Fail(trouble)
	if at, err := s.Freshness(); !at.Equal(proven) || !errors.Is(err, trouble) {
		t.Errorf("got %v, %v; want the time of the proof and the trouble since", at, err)
	}
	feed.Confirm(proven.Add(time.Second))
	if at, err := s.Freshness(); !at.Equal(proven.Add(time.Second)) || err != nil {
		t.Errorf("got %v, %v; want the later proof and no trouble", at, err)
	}
}

func TestCloseWakesReadersAndStopsWriters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := catalog.NewFeed("order")
		waiting := make(chan error)
		go func() {
			_, err := feed.Latest(t.Context())
			waiting <- err
		}()
		synctest.Wait()
		feed.Close(nil)
		feed.Close(errors.New("again"))
		if err := <-waiting; !errors.Is(err, catalog.ErrClosed) {
			t.Errorf("got %v; want ErrClosed", err)
		}
		feed.Publish([]catalog.Instance{good()}, time.Now())
		if s := feed.Current(); s != nil {
			t.Errorf("got %v after Close; want none", s)
		}
	})
}

func TestCloseSupersedesTheLastSnapshot(t *testing.T) {
	feed := catalog.NewFeed("order")
	feed.Publish(nil, time.Now())
	last := feed.Current()
	why := errors.New("nobody asked")
	feed.Close(why)
	if !closed(last.Superseded()) {
		t.Error("the last snapshot is not superseded")
	}
	if _, err := feed.Latest(t.Context()); !errors.Is(err, why) {
		t.Errorf("got %v; want the reason given to Close", err)
	}
}

func TestFixedRefusesTheWholeSetForOneBadInstance(t *testing.T) {
	var source catalog.Fixed
	if err := source.Set("order", catalog.Instance{ID: "a", Host: "10.0.0.3", Port: 80}); err != nil {
		t.Fatal(err)
	}
	var invalid *catalog.InvalidError
	if err := source.Set("order", catalog.Instance{ID: "b", Host: "10.0.0.4", Port: 80}, catalog.Instance{ID: "c"}); !errors.As(err, &invalid) {
		t.Fatalf("got %v; want an InvalidError", err)
	}
	s, err := source.Latest(t.Context(), "order")
	if err != nil || s.Len() != 1 {
		t.Errorf("got %v, %v; want the set as it was", s, err)
	}
}

func TestReadersAndOneWriterShareAFeed(t *testing.T) {
	feed := catalog.NewFeed("order")
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 100 {
				s, err := feed.Latest(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				<-s.Superseded()
				if closed(s.Superseded()) && s.Len() == 99 {
					return
				}
			}
		})
	}
	stop := make(chan struct{})
	go func() { readers.Wait(); close(stop) }()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
			feed.Publish(make([]catalog.Instance, n%100), time.Now())
			feed.Confirm(time.Now())
		}
	}
}

func BenchmarkLatest(b *testing.B) {
	feed := catalog.NewFeed("order")
	feed.Publish(make([]catalog.Instance, 3), time.Now())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := feed.Latest(b.Context()); err != nil {
				b.Error(err)
			}
		}
	})
}
