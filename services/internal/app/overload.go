package app

import (
	"net/http"

	"github.com/rollcall-mesh/rollcall/services/internal/fault"
	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

// limit returns the one limit that all traffic ports share. An edge has none: its
// work is to wait for others, and a stream through it lasts as long as it likes, so
// that neither how many are under way nor how long they take tells of its load. Its
// limits are those of connections and of requests in flight.
func (s *service) limit() (*overload.Limiter, error) {
	if s.spec.Edge {
		return nil, nil //nolint:nilnil // nil is no limit
	}
	shed := map[overload.Kind]func(){}
	limits, err := overload.New(overload.Config{
		Start:   int(s.settings.OverloadFrom),
		Shed:    func(kind overload.Kind) { shed[kind]() },
		Changed: s.tellOverload,
	})
	if err != nil {
		return nil, &settingsError{err}
	}
	for _, kind := range []overload.Kind{overload.Read, overload.Write} {
		shed[kind] = s.metrics.Limiter(string(kind), func() (limit, atWork int) { return limits.Now(kind) })
	}
	return limits, nil
}

// traffics returns the handlers of the traffic ports, within the limit. It is
// outside of what a test build adds, so that a capacity set there is what the limit
// finds.
func traffics(ports []Port, limits *overload.Limiter) []http.Handler {
	handlers := make([]http.Handler, 0, len(ports))
	for _, port := range ports {
		h := fault.Traffic(port.Handler)
		if limits != nil {
			h = limits.Handler(h)
		}
		handlers = append(handlers, h)
	}
	return handlers
}

func (s *service) tellOverload(kind overload.Kind, over bool) {
	if over {
		s.log.Warn("more is asked than can be done: the rest is shed", "kind", string(kind))
		return
	}
	s.log.Info("the overload is over", "kind", string(kind))
}
