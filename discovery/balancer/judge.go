package balancer

import "time"

// Judge decides by their outcomes which endpoints are ejected: taken out of use
// for a while though the registry has nothing against them. outlier.Judge is
// one. Many goroutines call it at once.
type Judge interface {
	// Record begins the record of an endpoint; it lives as long as the Endpoint.
	Record() Record
	// Most returns how many of n endpoints may be out at once. One always
	// stays, whatever it returns.
	Most(n int) int
}

// Record is what a Judge knows of one endpoint. Many goroutines call it at
// once, for each request.
type Record interface {
	// Note takes an outcome and says what follows from it.
	Note(o Outcome) Verdict
	// Ejected is told that an ejection that Note asked for was granted. It is
	// refused when as many are out as may be, or when the endpoint is.
	Ejected(x Ejection)
}

// Verdict is what follows from an outcome. The zero Verdict means nothing.
type Verdict struct {
	// Eject is how long the endpoint should be out; 0 means not at all.
	Eject time.Duration
	// Reason is one of a bounded set, fit for a metric's label.
	Reason string
	// Trusted ends the probation that follows an ejection.
	Trusted bool
}

// Ejection says from when until when an endpoint is out of use, and why. When
// it is over the endpoint is on probation until the Judge trusts it: it gets one
// request at a time while others are left.
type Ejection struct {
	At, Until time.Time
	Reason    string
}

// Over reports whether the ejection has ended.
func (x Ejection) Over(now time.Time) bool { return !now.Before(x.Until) }
