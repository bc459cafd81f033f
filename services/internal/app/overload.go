package app

import (
	"net/http"

	"github.com/rollcall-mesh/rollcall/services/internal/fault"
	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

// limited wraps the handlers of the traffic ports with the one limit that they
// share, outside of what a test build adds, so that a capacity set there is
// what the limit finds. An edge has none: its work is to wait for others, and a
// stream through it lasts as long as it likes, so that neither how many are
// under way nor how long they take tells of its load. Its limits are those of
// connections and of requests in flight.
func (s *service) limited(ports []Port) ([]http.Handler, error) {
	handlers := make([]http.Handler, 0, len(ports))
	for _, port := range ports {
		handlers = append(handlers, fault.Traffic(port.Handler))
	}
	if s.spec.Edge {
		return handlers, nil
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
	for n, h := range handlers {
		handlers[n] = limits.Handler(h)
	}
	return handlers, nil
}

func (s *service) tellOverload(kind overload.Kind, over bool) {
	if over {
		s.log.Warn("more is asked than can be done: the rest is shed", "kind", string(kind))
		return
	}
	s.log.Info("the overload is over", "kind", string(kind))
}
