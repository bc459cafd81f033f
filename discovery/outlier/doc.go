// Package outlier judges endpoints by the outcomes of their requests, and says
// which are to be ejected: taken out of use for a while though the registry has
// nothing against them.
//
//	judge, err := outlier.New(outlier.Config{})
//	order := balancer.NewJudged("order", nil, judge, nil)
//
// An instance that passes its health check and answers 500 to everything, or
// whose address swallows what is sent to it, is found by those who send to it,
// in as many requests as Config.Consecutive. It comes back by itself, each time
// after a longer while:
//
//	       enough failures in a row
//	used ───────────────────────────▶ ejected ◀──────────┐
//	 ▲                                   │ time is over  │ a failure
//	 │      enough answers in a row      ▼               │
//	 └─────────────────────────────── on probation ──────┘
//
// On probation it gets one request at a time while others are left, and a single
// failure ejects it again, for twice as long. Each good time after that takes
// one doubling back.
//
// A share of a service's endpoints may be out at once, and never all of them:
// when everything fails, everything is tried. What the registry calls critical
// is not counted; it is out of use by other means.
//
// The model is Envoy's outlier detection, consecutive 5xx and gateway failures
// (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier);
// the probation, and that one endpoint is always left, are ours.
//
// A [Judge] serves any number of balancers and goroutines. It has no clock and no
// goroutine of its own: the outcomes bring the time, and the balancer asks. While
// all is well a request costs it three atomic reads.
package outlier
