package metrics

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// collector is all metrics of a registry. It is registered as one: either all of
// them are new there, or all of them are another mesh's and shared.
type collector struct {
	build *prometheus.GaugeVec

	// Serving: see Server.
	requests *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	open     *prometheus.GaugeVec
	accepted *prometheus.CounterVec
	refused  *prometheus.CounterVec
	panics   *prometheus.CounterVec
	shed     *prometheus.CounterVec
	replayed *prometheus.CounterVec
	degraded *prometheus.CounterVec
	limits   *limits
	// Serving gRPC: see RPCServer.
	rpcs         *prometheus.HistogramVec
	rpcsInFlight *prometheus.GaugeVec
	rpcPanics    *prometheus.CounterVec

	// Calling.
	calls      *prometheus.HistogramVec
	tries      *prometheus.CounterVec
	retries    *prometheus.CounterVec
	beside     *prometheus.CounterVec
	overBudget *prometheus.CounterVec
	picks      *prometheus.CounterVec
	ejections  *prometheus.CounterVec
	capped     *prometheus.CounterVec

	// TLS.
	expiry     *prometheus.GaugeVec
	tlsFailing *prometheus.GaugeVec
	tlsLoads   *prometheus.CounterVec

	// Knowing.
	changes   *prometheus.CounterVec
	answers   *prometheus.CounterVec
	errors    *prometheus.CounterVec
	invalid   *prometheus.CounterVec
	missing   *prometheus.CounterVec
	questions *prometheus.CounterVec
	switches  *prometheus.CounterVec
	statuses  *statuses

	// Being known.
	attempts    *prometheus.CounterVec
	transitions *prometheus.CounterVec
	leaving     *prometheus.HistogramVec

	parts []prometheus.Collector
}

// register puts a collector into the registry, or returns the one that is there.
func register(r prometheus.Registerer) (*collector, error) {
	c := newCollector()
	err := r.Register(c)
	if taken, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		there, ours := taken.ExistingCollector.(*collector)
		if !ours {
			return nil, fmt.Errorf("register: another package's metrics have these names: %w", err)
		}
		return there, nil
	}
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	return c, nil
}

func newCollector() *collector {
	c := &collector{limits: &limits{}, statuses: &statuses{}}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, append([]string{"service"}, labels...))
		c.parts = append(c.parts, v)
		return v
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"service"}, labels...))
		c.parts = append(c.parts, v)
		return v
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(durations(name, help), append([]string{"service"}, labels...))
		c.parts = append(c.parts, v)
		return v
	}
	c.build = gauge("rollcall_build_info",
		"Always 1; its labels say which version of the program runs, and which version of Go built it.", "version", "goversion")

	c.requests = histogram("http_server_request_duration_seconds",
		"Time from the arrival of a request's header to the end of its answer; of a stream (an answer that is flushed before its end) and of an upgraded connection until it began, since what comes then lasts as long as its ends like. By the pattern of the route (\"unmatched\" if none fits), the method (\"other\" if unknown) and the status code (499 if there was no answer: the client left, or the request was cut off).",
		"route", "method", "code")
	c.inFlight = gauge("http_server_requests_in_flight", "Requests being served now, streams and upgraded connections included.")
	c.open = gauge("http_server_connections_open", "Connections that are open now, idle ones and upgraded ones included.")
	c.accepted = counter("http_server_connections_accepted_total", "Connections that were accepted and served.")
	c.refused = counter("http_server_connections_refused_total",
		"Connections that were answered 503 and closed, since the limit of open connections was reached.")
	c.panics = counter("http_server_panics_total", "Handlers that panicked; each was answered 500 if that was still possible.")
	c.shed = counter("http_server_requests_shed_total",
		"Requests over the limit, by kind, which were answered 503 or RESOURCE_EXHAUSTED before any work was done.", "kind")
	c.replayed = counter("rollcall_replayed_answers_total",
		"Answers that were given before, to the first request with the same Idempotency-Key.")
	c.degraded = counter("rollcall_degraded_answers_total",
		"Answers that were given without asking another service, which could not be reached.")

	c.rpcs = histogram("rpc_server_call_duration_seconds",
		"Time from a gRPC call's arrival to its end, of a stream too, by the method as it is on the wire (\"unmatched\" if the server does not have it) and the status code as Go's gRPC names it. Checks of health are left out.",
		"method", "code")
	c.rpcsInFlight = gauge("rpc_server_calls_in_flight", "gRPC calls being served now, streams included.")
	c.rpcPanics = counter("rpc_server_panics_total", "Handlers of gRPC calls that panicked; each was answered INTERNAL.")

	c.calls = histogram("rollcall_client_request_duration_seconds",
		"Time of a request through the mesh, all tries included, to the header of the answer or the failure, by the service asked and how it ended: the outcome of the try whose answer or failure the caller got; or no_instance or wrong_scheme, without a try.",
		"peer", "outcome")
	c.tries = counter("rollcall_client_tries_total",
		"Tries at one instance, by the service asked and how the try ended: one of the outcomes of docs/explanation/choosing.md.",
		"peer", "outcome")
	c.retries = counter("rollcall_client_retries_total",
		"Tries beyond the first of a request, by the service asked and the outcome of the try before; patience for one that was begun beside a try without an answer so far.",
		"peer", "reason")
	c.beside = counter("rollcall_client_beside_total",
		"Tries that ran beside others of the same request, one of which had no answer within the patience, by the service asked.", "peer")
	c.overBudget = counter("rollcall_client_over_budget_total",
		"Requests that would have been tried again had the budget of retries paid for it, by the service asked.", "peer")
	c.picks = counter("rollcall_picks_total",
		"Instances chosen to send to, by the service asked and mode: normal, or panic (none was ready, or each that was has failed the request, so one that is critical was used rather than failing it).",
		"peer", "mode")
	c.ejections = counter("rollcall_ejections_total",
		"Instances taken out of use for a while for failing, by the service asked and the outcome of the last failure: unreachable, untrusted, misdirected, silent, broken, body_broken, gateway, gateway_timeout, error.",
		"peer", "reason")
	c.capped = counter("rollcall_ejections_refused_total",
		"Failures for which an instance was due to be taken out of use, and stayed, since as many are out as may be, by the service asked.", "peer")

	c.expiry = gauge("rollcall_tls_certificate_expiry_timestamp_seconds",
		"When the certificate in use is over, as a Unix time, by what it is used for.", "use")
	c.tlsFailing = gauge("rollcall_tls_files_failing",
		"1 while the files of roots, certificate and key can't be used and the last good ones are, else 0.", "use")
	c.tlsLoads = counter("rollcall_tls_loads_total",
		"Times that the files of roots, certificate and key were taken into use, or could not be, by result: loaded, failed.", "use", "result")

	c.changes = counter("rollcall_watch_changes_total",
		"Times that a new set of instances was put into use, by the service followed.", "peer")
	c.answers = counter("rollcall_watch_answers_total",
		"Answers of Consul with all instances of a service that were read and believed, by the service followed and result: changed (it brought a new set), unchanged.",
		"peer", "result")
	c.errors = counter("rollcall_watch_errors_total",
		"Questions to Consul that failed or whose answer was not believed, by the service followed. The last good set stays in use.", "peer")
	c.invalid = counter("rollcall_watch_refused_entries_total",
		"Catalog entries that were dropped because they can't be used, by the service followed and the field at fault.", "peer", "field")
	c.missing = counter("rollcall_watch_missing_total",
		"Instances that vanished from Consul's answer and were kept in use for a while, by the service followed.", "peer")
	c.questions = counter("rollcall_consul_questions_total",
		"Questions to Consul about services, those of other datacenters and of views with a filter included, by what for: fetch (to begin anew), block (held until there is news), confirm (the leader's word), whole (without the filter), audit (the index alone), scan (an audit that says what the token may see), token (what the token is), services (the list of all), key and write (documents in its KV).",
		"op")
	c.switches = counter("rollcall_failover_switches_total",
		"Times that the instances in use came to be those of another datacenter, by the service followed and to: away, or home for this datacenter's again.",
		"peer", "to")

	c.attempts = counter("rollcall_registration_attempts_total",
		"Calls to Consul about this process's own entries, by their service, what was asked (register, deregister, heartbeat; read is any question that is answered at once, hold one that Consul holds until there is news) and whether it worked: ok or error.",
		"op", "outcome")
	c.transitions = counter("rollcall_registration_transitions_total",
		"Changes of the state that this process's own entries in Consul are in, by their service, the state they left and the one they came to. From registered to recovering is an entry that was lost, or a Consul that went away.",
		"from", "to")
	c.leaving = histogram("rollcall_registration_leaving_seconds",
		"Time that each step of leaving took, by the service that was registered: seen (from the beginning of a drain until the catalog shows it), settled (from then until the drain is over), gone (from the end until the entry is deregistered).",
		"step")

	c.parts = append(c.parts, c.limits, c.statuses)
	return c
}

// Describe is for the registry.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, p := range c.parts {
		p.Describe(out)
	}
}

// Collect is for the registry.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, p := range c.parts {
		p.Collect(out)
	}
}
