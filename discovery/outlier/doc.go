// Package outlier says by the outcomes of its requests how an endpoint stands:
// healthy, suspect, ejected, or on trial.
//
//	rules, err := outlier.New(outlier.Config{})
//	var health outlier.Health
//	health.Begin(rules, time.Now())
//	if d := health.Note(result); d > 0 {
//		health.Eject(result, d)
//	}
//
// An instance that passes its health check and answers 500 to everything, or
// whose address swallows what is sent to it, is found by its callers,
// in as many requests as Config.Consecutive. It comes back by itself, each time
// after a longer while:
//
//	  a failure        enough failures in a row
//	┌───────────┐ ┌───────────────────────────────▶ ejected ◀─────────┐
//	▼           │ │                                    │ time is over │ a failure
//	suspect ── healthy ◀─────────────────────────── on trial ─────────┘
//	  a while, or an answer    enough answers in a row
//
// Rows of failures are kept for each [outcome.Group] of requests, so that an
// instance which hangs on all that change something is found though it answers
// the others; and the trial after that needs answers of the group that failed.
// What began before an ejection says nothing of the time after it. What each
// outcome proves is told by [outcome.Code.Row].
//
// A share of a service's endpoints may be out at once, and never all of them:
// when everything fails, everything is tried. The balancer asks for the
// share by [Rules.Most].
//
// The model is Envoy's outlier detection, consecutive 5xx and gateway failures
// (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier);
// suspicion, groups, the trial, and that one endpoint is always left, are ours.
//
// There is no clock and no goroutine here: the results bring the time. While all
// is well a request costs a few atomic reads.
package outlier
