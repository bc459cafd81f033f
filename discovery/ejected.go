package discovery

import (
	"log/slog"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// loggedEjections returns the trace with a line in the log for each ejection.
func loggedEjections(trace *httpmesh.Trace, log *slog.Logger) *httpmesh.Trace {
	var logged httpmesh.Trace
	if trace != nil {
		logged = *trace
	}
	tell := logged.Balancer.Ejected
	logged.Balancer.Ejected = func(service string, i catalog.Instance, x outlier.Ejection) {
		log.Warn("instance ejected for failing", "service", service, "id", i.ID, "addr", i.Addr(),
			"reason", x.Reason.String(), "for", x.Until.Sub(x.At))
		if tell != nil {
			tell(service, i, x)
		}
	}
	return &logged
}
