package metrics

import "github.com/rollcall-mesh/rollcall/discovery/mtls"

// TLS returns the functions by which a TLS identity tells these metrics of its
// files: the Trace of mtls.Config. use says what the identity is for, and is the
// label of that name; a mesh's own is "mesh".
func (m *Metrics) TLS(use string) *mtls.Trace {
	// Made when it is told of: a process without TLS has no such series.
	failing := func(is float64) { m.all.tlsFailing.WithLabelValues(m.cfg.Service, use).Set(is) }
	loads := func(result string) { m.all.tlsLoads.WithLabelValues(m.cfg.Service, use, result).Inc() }
	return &mtls.Trace{
		Loaded: func(i mtls.Info) {
			loads("loaded")
			failing(0)
			if !i.NotAfter.IsZero() {
				m.all.expiry.WithLabelValues(m.cfg.Service, use).Set(float64(i.NotAfter.Unix()))
			}
		},
		Failed: func(error) {
			loads("failed")
			failing(1)
		},
		Kept: func() { failing(0) },
	}
}
