package failover_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/failover"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const settle = 10 * time.Second

// world is three datacenters, and a mesh in the first.
type world struct {
	t        *testing.T
	here     catalog.Fixed
	far      [2]staleable
	source   *failover.Source
	switches []string
}

// staleable is a Source that can be too old.
type staleable struct {
	catalog.Fixed
	old atomic.Bool
}

func (s *staleable) Latest(ctx context.Context, service string) (*catalog.Snapshot, error) {
	if s.old.Load() {
		return nil, errors.New("not proven for too long")
	}
	return s.Fixed.Latest(ctx, service)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t}
	var err error
	w.source, err = failover.New(failover.Config{
		Local:  &w.here,
		Others: []failover.Datacenter{{Name: "dc2", Source: &w.far[0]}, {Name: "dc3", Source: &w.far[1]}},
		Settle: settle,
		Trace:  &failover.Trace{Switched: func(_, datacenter string) { w.switches = append(w.switches, datacenter) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.source.Close() })
	return w
}

type settable interface {
	Set(service string, instances ...catalog.Instance) error
}

// set says what a datacenter has: "a" is passing, "a!" critical, "a?" missing.
func (w *world) set(of settable, what string) {
	w.t.Helper()
	var set []catalog.Instance
	for id := range strings.FieldsSeq(what) {
		name := strings.TrimRight(id, "!?")
		i := catalog.Instance{ID: name, Host: name, Port: 80}
		if strings.HasSuffix(id, "!") {
			i.State = catalog.StateCritical
		}
		if strings.HasSuffix(id, "?") {
			i.MissingUntil = time.Now().Add(time.Minute)
		}
		set = append(set, i)
	}
	if err := of.Set("order", set...); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// want says what the set is to be: "(a)" is in reserve.
func (w *world) want(what, when string) *catalog.Snapshot {
	w.t.Helper()
	s, err := w.source.Latest(w.t.Context(), "order")
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	s = s.Newest()
	var got []string
	for i := range s.All() {
		switch {
		case i.Reserve:
			got = append(got, "("+i.ID+")")
		case i.State == catalog.StateCritical:
			got = append(got, i.ID+"!")
		default:
			got = append(got, i.ID)
		}
	}
	if text := strings.Join(got, " "); text != what {
		w.t.Errorf("%s: got %q; want %q", when, text, what)
	}
	return s
}

func TestOtherDatacentersStandInInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(&w.here, "a b")
		w.set(&w.far[1], "y")
		w.want("a b (y)", "the nearer has none")
		w.set(&w.far[0], "x z!")
		w.want("a b (x)", "both have one")
		w.set(&w.here, "a? b!")
		w.want("a b! (x)", "one is missing here, one critical")
		w.set(&w.here, "a! b!")
		for i := range w.want("a! b! x", "all are critical here").All() {
			if far := i.ID == "x"; far != (i.Datacenter == "dc2") || !far && i.Datacenter != "" {
				t.Errorf("%s is of the datacenter %q; want dc2 for x, and none for those here", i.ID, i.Datacenter)
			}
		}
		w.set(&w.far[0], "x!")
		w.want("a! b! y", "the nearer has none that is ready")
		w.far[1].old.Store(true)
		w.set(&w.far[1], "y2") // wakes its readers, as a set does that gets too old
		w.want("a! b!", "the farther one is too old")
		w.far[1].old.Store(false)
		time.Sleep(2 * time.Second)
		w.want("a! b! y2", "it is proven again")
		w.set(&w.here, "")
		w.want("y2", "nothing is left here")
		if want := []string{"dc2", "dc3", "", "dc3"}; !slices.Equal(w.switches, want) {
			t.Errorf("told of %q; want %q", w.switches, want)
		}
	})
}

func TestThisDatacenterIsUsedAtOnceAndAloneWhenItHasSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(&w.here, "a!")
		w.set(&w.far[0], "x")
		w.want("a! x", "away")
		w.set(&w.here, "a")
		w.want("a x", "back, not settled")
		time.Sleep(settle - time.Second)
		w.set(&w.here, "a!")
		w.want("a! x", "it flaps")
		w.set(&w.here, "a")
		time.Sleep(settle - time.Second)
		w.want("a x", "the time begins anew")
		time.Sleep(time.Second)
		w.want("a (x)", "settled")
		if want := []string{"dc2", ""}; !slices.Equal(w.switches, want) {
			t.Errorf("told of %q; want %q: flapping is not told", w.switches, want)
		}
	})
}

func TestSnapshotIsAsFreshAsThisDatacenters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.set(&w.here, "a")
		w.set(&w.far[0], "x")
		s := w.want("a (x)", "at first")
		here, err := w.here.Latest(t.Context(), "order")
		if err != nil {
			t.Fatal(err)
		}
		want, _ := here.Freshness()
		if got, trouble := s.Freshness(); !got.Equal(want) || got.IsZero() || trouble != nil {
			t.Errorf("got %s, %v; want %s", got, trouble, want)
		}
		if w.source.Current("order") != s || w.source.Current("user") != nil {
			t.Error("Current does not tell what is followed")
		}
	})
}

// forgetful is a Source that follows a service for a while.
type forgetful struct{ feed *catalog.Feed }

func (f *forgetful) Latest(ctx context.Context, _ string) (*catalog.Snapshot, error) {
	if f.feed.Current() == nil {
		f.feed = catalog.NewFeed("order")
		f.feed.Publish([]catalog.Instance{{ID: "a", State: catalog.StatePassing}}, time.Now())
	}
	return f.feed.Latest(ctx)
}

func (*forgetful) KeepAlive(string) {}

func TestServiceThatIsFollowedNoMoreEndsItsGoroutinesAndMayBeginAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := &forgetful{catalog.NewFeed("order")}
		source, err := failover.New(failover.Config{Local: local, Others: []failover.Datacenter{{Name: "dc2", Source: new(catalog.Fixed)}}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s, err := source.Latest(t.Context(), "order")
			if err != nil || s.Len() != 1 {
				t.Fatalf("got %v, %v; want an instance", s, err)
			}
			synctest.Wait()
			local.feed.Close(nil)
			synctest.Wait()
			if s.Newest() != nil || source.Current("order") != nil {
				t.Error("followed still")
			}
			<-s.Superseded()
		}
		if err := errors.Join(source.Close(), source.Close()); err != nil {
			t.Error(err)
		}
		if _, err := source.Latest(t.Context(), "order"); !errors.Is(err, catalog.ErrClosed) {
			t.Errorf("got %v; want ErrClosed", err)
		}
	})
}

func TestWrongSettingIsNamed(t *testing.T) {
	here, dc2 := new(catalog.Fixed), failover.Datacenter{Name: "dc2", Source: new(catalog.Fixed)}
	for want, cfg := range map[string]failover.Config{
		"Local is nil":                   {Others: []failover.Datacenter{dc2}},
		"Others is empty":                {Local: here},
		"Settle is -1s":                  {Local: here, Others: []failover.Datacenter{dc2}, Settle: -time.Second},
		"Others[0].Name is empty":        {Local: here, Others: []failover.Datacenter{{Source: here}}},
		"Others[0].Source is nil":        {Local: here, Others: []failover.Datacenter{{Name: "dc2"}}},
		`Others[1].Name is "dc2", which`: {Local: here, Others: []failover.Datacenter{dc2, dc2}},
	} {
		if _, err := failover.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %s", err, want)
		}
	}
}
