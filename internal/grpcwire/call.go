// Package grpcwire reads and writes what gRPC says in HTTP's headers and trailers
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), for those who pass
// calls on and know nothing of their messages.
package grpcwire

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Is reports whether a request is a call of gRPC, or an answer one to such a call.
// gRPC-Web is another protocol.
func Is(h http.Header) bool {
	said := h["Content-Type"]
	const prefix = "application/grpc"
	if len(said) == 0 || len(said[0]) < len(prefix) || !strings.EqualFold(said[0][:len(prefix)], prefix) {
		return false
	}
	rest := said[0][len(prefix):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

// TimeoutHeader is how long the sender of a call waits for its end.
const TimeoutHeader = "Grpc-Timeout"

var units = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// maxDigits is how many a time has at most.
const maxDigits = 8

// Timeout returns what a call's TimeoutHeader says; false if it says nothing that can
// be understood.
func Timeout(h http.Header) (time.Duration, bool) {
	said := h[TimeoutHeader]
	if len(said) != 1 || len(said[0]) < 2 || len(said[0]) > maxDigits+1 {
		return 0, false
	}
	digits, unit := said[0][:len(said[0])-1], units[said[0][len(said[0])-1]]
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || unit == 0 {
		return 0, false
	}
	const most = 1<<63 - 1
	if n > most/uint64(unit) {
		return most, true
	}
	return time.Duration(n) * unit, true
}

// TimeoutValue is what a TimeoutHeader says of a time; less than a microsecond counts
// as one.
func TimeoutValue(left time.Duration) string {
	const most = 99_999_999
	n, unit := max(left, time.Microsecond)/time.Microsecond, "u"
	if n > most {
		n, unit = left/time.Millisecond, "m"
	}
	if n > most {
		n, unit = min(left/time.Second, most), "S"
	}
	return strconv.FormatInt(int64(n), 10) + unit
}
