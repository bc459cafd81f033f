package catalog

import (
	"fmt"
	"runtime"
	"testing"
)

func TestFixedKeepsNothingForNamesItLacks(t *testing.T) {
	var source Fixed
	if err := source.Set("order", Instance{ID: "a", Host: "a", Port: 1}); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const names = 100_000
	for n := range names {
		s, err := source.Latest(t.Context(), fmt.Sprint("name-from-a-request-", n))
		if err != nil || s.Len() != 0 || s.Newest() == nil {
			t.Fatalf("got %v and %v; want an empty snapshot", s, err)
		}
	}
	if after := heap(); after > before+names*10 {
		t.Errorf("%d names cost %d bytes; want none kept", names, after-before)
	}
	if s, err := source.Latest(t.Context(), "order"); err != nil || s.Len() != 1 {
		t.Errorf("got %v and %v; want what was set", s, err)
	}
}

func TestReaderOfANameThatFixedLacksLearnsOfItsFirstSet(t *testing.T) {
	var source Fixed
	s, err := source.Latest(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	if s.Service() != "order" {
		t.Errorf("got a snapshot of %q; want order", s.Service())
	}
	if err := source.Set("user", Instance{ID: "u", Host: "u", Port: 1}); err != nil {
		t.Fatal(err)
	}
	if !superseded(s) {
		t.Fatal("not superseded by the first set of a name")
	}
	if s = s.Newest(); s.Service() != "order" || s.Len() != 0 {
		t.Fatalf("got %d instances of %q; want an empty set of order", s.Len(), s.Service())
	}
	if superseded(s) {
		t.Error("superseded although no name was set since")
	}
	if err := source.Set("order", Instance{ID: "a", Host: "a", Port: 1}); err != nil {
		t.Fatal(err)
	}
	if !superseded(s) {
		t.Fatal("not superseded by its own first set")
	}
	if s = s.Newest(); s.Len() != 1 {
		t.Errorf("got %d instances; want the one that was set", s.Len())
	}
}

func TestZeroSnapshotIsTheEmptySetOfNoService(t *testing.T) {
	var s Snapshot
	for range s.All() {
		t.Error("it has an instance")
	}
	proven, trouble := s.Freshness()
	if s.Service() != "" || s.Len() != 0 || !s.At().IsZero() || !proven.IsZero() || trouble != nil || s.Newest() != nil {
		t.Errorf("got service %q, %d instances, at %s, proven %s, trouble %v, newest %v; want nothing", s.Service(), s.Len(), s.At(), proven, trouble, s.Newest())
	}
	if superseded(&s) {
		t.Error("it is superseded")
	}
}

func superseded(s *Snapshot) bool {
	select {
	case <-s.Superseded():
		return true
	default:
		return false
	}
}
