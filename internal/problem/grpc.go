package problem

import (
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// grpcCodes are as gRPC maps a status of HTTP that something in between has answered
// with (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md), but
// for those that we know more of: it was we who answered.
var grpcCodes = map[int]int{
	http.StatusBadRequest:                  grpcwire.Internal,
	http.StatusUnauthorized:                grpcwire.Unauthenticated,
	http.StatusForbidden:                   grpcwire.PermissionDenied,
	http.StatusNotFound:                    grpcwire.Unimplemented,
	http.StatusRequestTimeout:              grpcwire.DeadlineExceeded,
	http.StatusRequestEntityTooLarge:       grpcwire.ResourceExhausted,
	http.StatusMisdirectedRequest:          grpcwire.Unavailable,
	http.StatusTooManyRequests:             grpcwire.Unavailable,
	http.StatusRequestHeaderFieldsTooLarge: grpcwire.ResourceExhausted,
	http.StatusInternalServerError:         grpcwire.Internal,
	http.StatusBadGateway:                  grpcwire.Unavailable,
	http.StatusServiceUnavailable:          grpcwire.Unavailable,
	http.StatusGatewayTimeout:              grpcwire.DeadlineExceeded,
}

// writeStatus sends the problem as gRPC's "Trailers-Only": a status in the header of an
// answer without a body.
func writeStatus(w http.ResponseWriter, p Problem) {
	code, ok := grpcCodes[p.Status]
	if !ok {
		code = grpcwire.Unknown
	}
	header := w.Header()
	maps.Copy(header, p.Header)
	header.Set("Content-Type", "application/grpc")
	header.Set("Grpc-Status", strconv.Itoa(code))
	header.Set("Grpc-Message", escaped(p.Detail))
	header.Del("Content-Encoding")
	w.WriteHeader(http.StatusOK)
}

// escaped writes a text as gRPC's Status-Message: percent-encoded but for printable ASCII.
func escaped(text string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(text) {
		if c >= ' ' && c < 0x7f && c != '%' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}
