package outlier

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Config says when an endpoint is an outlier, and what follows. Its zero value
// works; a time or a number below zero is an error, where nothing else is said.
type Config struct {
	// Consecutive failures, of whatever kind, eject an endpoint. 0 means 5,
	// negative means that none is ever ejected. Fewer eject sooner, and a run of
	// requests that fail by their own fault may eject an endpoint that is well.
	Consecutive int
	// ConsecutiveGateway failures eject an endpoint if each proves that it does
	// not serve (outcome.Down and what is worse): no connection, no answer in
	// time, a connection that broke, another service at the address, or a 502, 503
	// or 504. 0 means 3, since none of those is ever the request's fault; negative
	// means that they count like any other.
	ConsecutiveGateway int
	// ConsecutiveUnreachable eject an endpoint if each proves that it is not at
	// its address (outcome.Absent): no connection, or another service. 0 means 1,
	// since a dial asks nothing of the service; negative means that they count like
	// any other of gateway kind. More costs the callers of a dead
	// instance as many dials.
	ConsecutiveUnreachable int
	// MaxEjected is the share of a service's endpoints that may be out at once, in
	// percent, rounded down. 0 means 50: one of two or three, two of four or five.
	// More protects better when many fail, and crowds more onto those that are
	// left. One is never ejected, even at 100.
	MaxEjected int
	// Ejection is how long the first ejection lasts; each one that follows lasts
	// twice as long. 0 means 2s. Shorter is back in use sooner, and asks one that
	// is still failing more often.
	Ejection time.Duration
	// MaxEjection is the longest. 0 means 30s.
	MaxEjection time.Duration
	// Probation is the number of answers in a row that end a trial. 0 means 5.
	Probation int
	// Forgive is the time in use that takes back one doubling. 0 means 10s.
	// Longer is harder on those that fail now and again.
	Forgive time.Duration
}

// filled returns the settings with their defaults, or what is wrong with them.
func (c Config) filled() (Config, error) {
	var wrong []error
	if c.MaxEjected < 0 || c.MaxEjected > 100 {
		wrong = append(wrong, fmt.Errorf("outlier: MaxEjected is %d; want 0 to 100", c.MaxEjected))
	}
	for _, d := range []struct {
		name string
		time time.Duration
	}{{"Ejection", c.Ejection}, {"MaxEjection", c.MaxEjection}, {"Forgive", c.Forgive}} {
		if d.time < 0 {
			wrong = append(wrong, fmt.Errorf("outlier: %s is %v; want more than 0, or 0 for the default", d.name, d.time))
		}
	}
	if c.Probation < 0 {
		wrong = append(wrong, fmt.Errorf("outlier: Probation is %d; want more than 0, or 0 for the default", c.Probation))
	}
	c.Consecutive = cmp.Or(c.Consecutive, 5)
	c.ConsecutiveGateway = cmp.Or(c.ConsecutiveGateway, 3)
	c.ConsecutiveUnreachable = cmp.Or(c.ConsecutiveUnreachable, 1)
	c.MaxEjected = cmp.Or(c.MaxEjected, 50)
	c.Ejection = cmp.Or(c.Ejection, 2*time.Second)
	c.MaxEjection = cmp.Or(c.MaxEjection, max(30*time.Second, c.Ejection))
	c.Probation = cmp.Or(c.Probation, 5)
	c.Forgive = cmp.Or(c.Forgive, 10*time.Second)
	if c.MaxEjection < c.Ejection {
		wrong = append(wrong, fmt.Errorf("outlier: MaxEjection is %v; want at least Ejection, which is %v", c.MaxEjection, c.Ejection))
	}
	return c, errors.Join(wrong...)
}
