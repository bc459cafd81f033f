package app

import (
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// FuzzSettings: whatever a setting of each kind is set to, it is refused by
// name, or within its bounds.
func FuzzSettings(f *testing.F) {
	f.Add(":8080", "10.0.0.3", "info", "300ms", "500ms", "3s", "1024")
	f.Add("[::1]:0", "order.internal", "DEBUG", "1m", "0", "-1s", "1e3")
	f.Add("", "", "", "", "", "", "")
	f.Add("::1:80", "fe80::1%eth0", "${level}", "300", "9223372036854775808ns", "1h1", "0x10")
	f.Add("--help", "-h", "@/etc/passwd", "1ms\x00", "\"1s\"", "1s,2s", "1_000")
	f.Fuzz(func(t *testing.T, listen, host, level, dial, settle, settleMax, connections string) {
		s, _, err := parse(Spec{Name: "user"}, []string{
			"--listen=" + listen, "--advertise-host=" + host, "--log-level=" + level, "--dial-timeout=" + dial,
			"--settle=" + settle, "--settle-max=" + settleMax, "--max-connections=" + connections,
		}, Process{Stdout: io.Discard, Stderr: io.Discard})
		if err != nil {
			wrong, ok := errors.AsType[*SettingError](err)
			if !ok || !strings.HasPrefix(wrong.Name, "ROLLCALL_") || wrong.Want == "" {
				t.Errorf("parse() = %v; want an error that names a setting and what is wanted", err)
			}
			return
		}
		if s == nil {
			t.Fatal("a value was taken for --help")
		}
		if _, port, err := net.SplitHostPort(string(s.Listen)); err != nil {
			t.Errorf("listen at %q: %v", s.Listen, err)
		} else if n, err := strconv.ParseUint(port, 10, 16); err != nil {
			t.Errorf("listen at %q: port %d, %v", s.Listen, n, err)
		}
		if entry := (catalog.Instance{ID: "a", Host: s.AdvertiseHost, Port: 1, Weight: 1}); s.AdvertiseHost != "" && entry.Validate() != nil {
			t.Errorf("advertises %q, which nobody takes: %v", s.AdvertiseHost, entry.Validate())
		}
		if !strings.Contains(" debug info warn error ", " "+string(s.LogLevel)+" ") {
			t.Errorf("log level %q", s.LogLevel)
		}
		if d := time.Duration(s.DialTimeout); d < time.Millisecond || d > time.Minute {
			t.Errorf("dial timeout %v; want 1ms to 1m", d)
		}
		if s.Settle > s.SettleMax || s.SettleMax > s.DrainTimeout || s.Settle < Duration(time.Millisecond) {
			t.Errorf("settle %v, at most %v, drain %v; want each below the next", time.Duration(s.Settle), time.Duration(s.SettleMax), time.Duration(s.DrainTimeout))
		}
		if n := int(s.MaxConnections); n < 1 || n > 1000000 {
			t.Errorf("%d connections; want 1 to 1000000", n)
		}
	})
}
