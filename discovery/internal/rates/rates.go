// Package rates counts what was sent to each service in the last ten seconds: how many
// requests, how many of them failed, how long they took.
//
// It is fed at the end of each request, and read by whoever shows it. Counting takes no
// lock and allocates nothing but for the first request for a name; the number of names
// is bounded. It asks no clock: the callers say what time it is.
package rates

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// MaxServices is how many services are counted at once, at 7 kB each. The calls of one
// more are counted when another has had none for as long as a Window looks back: names
// may come from requests.
const MaxServices = 256

// Services are the Windows of all services. The zero value is ready.
type Services struct {
	windows atomic.Pointer[map[string]*Window] // never changed, always replaced; nil: none

	mu   sync.Mutex // held to replace windows; guards what follows
	room time.Time  // when room may be made again
}

// Note counts a call that has ended now.
func (s *Services) Note(service string, c Call, now time.Time) {
	w := s.window(service)
	if w == nil {
		if w = s.begin(service, now); w == nil {
			return
		}
	}
	w.Note(c, now)
}

// Read returns what the last whole Seconds have brought for a service.
func (s *Services) Read(service string, now time.Time) Totals {
	if w := s.window(service); w != nil {
		return w.Read(now)
	}
	return Totals{}
}

func (s *Services) window(service string) *Window {
	if windows := s.windows.Load(); windows != nil {
		return (*windows)[service]
	}
	return nil
}

// begin makes the window of a service; nil if there is no room for it.
func (s *Services) begin(service string, now time.Time) *Window {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.window(service); w != nil {
		return w
	}
	windows := map[string]*Window{}
	if old := s.windows.Load(); old != nil {
		windows = maps.Clone(*old)
	}
	if len(windows) >= MaxServices {
		if now.Before(s.room) {
			return nil
		}
		s.room = now.Add(time.Second)
		maps.DeleteFunc(windows, func(_ string, w *Window) bool { return w.silent(now) })
		if len(windows) >= MaxServices {
			return nil
		}
	}
	w := &Window{Began: now}
	windows[service] = w
	s.windows.Store(&windows)
	return w
}
