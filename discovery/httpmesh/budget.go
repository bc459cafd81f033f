package httpmesh

import (
	"errors"
	"fmt"
)

// Budget bounds the retries that cost an instance work, so that a service whose
// every instance fails is asked little more than its callers ask: in any
// ten seconds, at most Ratio of that time's requests and Floor a second
// besides. Tries that never connected, or of which nothing was written, and those
// of a 421 are free, as gRFC A6's transparent retries; MaxRetries holds for all.
//
// It is Finagle's RetryBudget (com.twitter.finagle.service.RetryBudget: a share
// of recent requests, a floor a second, over 10 s), which linkerd took over, kept
// for each service and Transport.
type Budget struct {
	// Ratio of retries to requests. 0 means 0.1, negative means none. More lets
	// more requests outlive a failing instance, and adds as much to the load of
	// a service that is failing for its load.
	Ratio float64
	// Floor is a number of retries a second that are always allowed, for
	// services that are seldom asked. 0 means 3, negative means none.
	Floor float64
}

const (
	defaultRatio = 0.1
	defaultFloor = 3
	maxFloor     = 1000
)

// filled returns the settings with their defaults, or what is wrong with them.
func (b Budget) filled() (Budget, error) {
	var wrong []error
	if !(b.Ratio <= maxMaxRetries) { // NaN too
		wrong = append(wrong, fmt.Errorf("httpmesh: Budget.Ratio is %v; want at most %d, or negative for none", b.Ratio, maxMaxRetries))
	}
	if !(b.Floor <= maxFloor) {
		wrong = append(wrong, fmt.Errorf("httpmesh: Budget.Floor is %v; want at most %d a second, or negative for none", b.Floor, maxFloor))
	}
	if b.Ratio == 0 {
		b.Ratio = defaultRatio
	}
	if b.Floor == 0 {
		b.Floor = defaultFloor
	}
	return Budget{max(b.Ratio, 0), max(b.Floor, 0)}, errors.Join(wrong...)
}
