package grpcwire

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOnlyGRPCIsACall(t *testing.T) {
	for said, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "Application/gRPC;charset=utf-8": true,
		"application/grpc-web": false, "application/grpc-web+proto": false, "application/json": false, "application/grp": false, "": false,
	} {
		if got := Is(http.Header{"Content-Type": {said}}); got != want {
			t.Errorf("%q: %t; want %t", said, got, want)
		}
	}
	if Is(http.Header{}) {
		t.Error("a request without a content type is a call")
	}
}

func TestTimeoutIsReadInEachUnit(t *testing.T) {
	for said, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "40m": 40 * time.Millisecond, "5u": 5 * time.Microsecond,
		"99999999n": 99999999 * time.Nanosecond, "0m": 0, "99999999H": 1<<63 - 1,
	} {
		if got, ok := Timeout(http.Header{TimeoutHeader: {said}}); !ok || got != want {
			t.Errorf("%s: %v, %t; want %v", said, got, ok, want)
		}
	}
	for _, said := range []string{"", "m", "1", "1s", "-1m", "+1m", "100000000m", "1.5S", " 1S"} {
		if got, ok := Timeout(http.Header{TimeoutHeader: {said}}); ok {
			t.Errorf("%q: %v; want nothing", said, got)
		}
	}
	if _, ok := Timeout(http.Header{TimeoutHeader: {"1S", "2S"}}); ok {
		t.Error("two times are one")
	}
}

func TestTimeoutIsWrittenWithinEightDigits(t *testing.T) {
	for left, want := range map[time.Duration]string{
		-time.Second: "1u", 0: "1u", 1500 * time.Microsecond: "1500u", 99 * time.Second: "99000000u",
		100 * time.Second: "100000m", 48 * time.Hour: "172800S", 1<<63 - 1: "99999999S",
	} {
		got := TimeoutValue(left)
		if got != want {
			t.Errorf("%v: %s; want %s", left, got, want)
		}
		if _, ok := Timeout(http.Header{TimeoutHeader: {got}}); !ok {
			t.Errorf("%v: %s can't be read", left, got)
		}
	}
}

// message encodes fields, each its number and its bytes.
func message(numbered ...any) []byte {
	var raw []byte
	for n := 0; n < len(numbered); n += 2 {
		key := uint64(numbered[n].(int)) << 3
		switch v := numbered[n+1].(type) {
		case string:
			raw = append(binary.AppendUvarint(binary.AppendUvarint(raw, key|2), uint64(len(v))), v...)
		case []byte:
			raw = append(binary.AppendUvarint(binary.AppendUvarint(raw, key|2), uint64(len(v))), v...)
		case int:
			raw = binary.AppendUvarint(binary.AppendUvarint(raw, key), uint64(v))
		}
	}
	return raw
}

func TestStatusHasItsDetails(t *testing.T) {
	details := message(1, 14, 2, "the text",
		3, message(1, "type.googleapis.com/google.rpc.ErrorInfo", 2, message(1, "WRONG_SERVICE", 2, "rollcall")),
		3, message(1, "type.googleapis.com/google.rpc.RetryInfo", 2, message(1, message(1, 2, 2, 500_000_000))),
		3, message(1, "type.googleapis.com/google.rpc.Help", 2, "\xff\xff\xff"))
	for _, encode := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
		s, ok := StatusOf(http.Header{"Grpc-Status": {"14"}, "Grpc-Message": {"the text"}, "Grpc-Status-Details-Bin": {encode.EncodeToString(details)}})
		want := Status{Code: 14, Message: "the text", Domain: "rollcall", Reason: "WRONG_SERVICE", Wait: 2500 * time.Millisecond, Waits: true}
		if !ok || s != want {
			t.Errorf("got %+v, %t; want %+v", s, ok, want)
		}
	}
	if _, ok := StatusOf(http.Header{}); ok {
		t.Error("nothing is a status")
	}
	if s, _ := StatusOf(http.Header{"Grpc-Status": {"many"}}); s.Code != Unknown {
		t.Errorf("a code that is no number is %d; want %d", s.Code, Unknown)
	}
}

func TestPushbackThatIsNoNumberMeansForEver(t *testing.T) {
	for _, tc := range []struct {
		said []string
		want time.Duration
	}{{[]string{"20"}, 20 * time.Millisecond}, {[]string{"-1"}, -1}, {[]string{"soon"}, -1}, {[]string{"1", "2"}, -1}} {
		if s, _ := StatusOf(http.Header{"Grpc-Status": {"8"}, "Grpc-Retry-Pushback-Ms": tc.said}); !s.Waits || s.Wait != tc.want {
			t.Errorf("%q: %v, %t; want %v", tc.said, s.Wait, s.Waits, tc.want)
		}
	}
}

func FuzzStatusOf(f *testing.F) {
	f.Add("14", message(1, 14, 3, message(1, "a/google.rpc.ErrorInfo", 2, message(1, "A", 2, "b"))))
	f.Add("8", message(3, message(1, "google.rpc.RetryInfo", 2, message(1, message(1, 1<<62, 2, 1<<62)))))
	f.Fuzz(func(t *testing.T, code string, details []byte) {
		s, ok := StatusOf(http.Header{"Grpc-Status": {code}, "Grpc-Status-Details-Bin": {base64.StdEncoding.EncodeToString(details)}})
		if !ok || s.Wait < 0 {
			t.Errorf("got %+v, %t; want a status whose wait is none or some", s, ok)
		}
	})
}
