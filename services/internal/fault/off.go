//go:build !faults

package fault

import (
	"net/http"
	"time"
)

// Enabled says whether this is a test build.
const Enabled = false

// Traffic returns the handler of a traffic port, with the faults that are set.
func Traffic(next http.Handler) http.Handler { return next }

// Admin returns the handler of the admin port, with /faults.
func Admin(next http.Handler) http.Handler { return next }

// Now is the time by a clock that a test build can set wrong.
func Now() time.Time { return time.Now() }

// Point is where a test build can be made to crash.
func Point(string) {}
