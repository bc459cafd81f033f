package app

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parseFor(t *testing.T, args ...string) (*Settings, string, error) {
	t.Helper()
	var out bytes.Buffer
	return parse(Spec{Name: "user", TryTimeout: 400 * time.Millisecond}, args, Process{Stdout: &out, Stderr: &out})
}

func TestNothingSetMeansTheDefaults(t *testing.T) {
	s, command, err := parseFor(t)
	if err != nil || command != "serve" {
		t.Fatalf("parse() = %q, %v; want serve", command, err)
	}
	if s.Listen != ":8080" || s.AdminListen != ":8081" || s.MaxConnections != 1024 || s.LogFormat != "auto" ||
		time.Duration(s.TryTimeout) != 400*time.Millisecond || time.Duration(s.DialTimeout) != 300*time.Millisecond {
		t.Errorf("defaults are %+v", s)
	}
}

func TestLimitsAreThoseThatWereSet(t *testing.T) {
	s, _, err := parseFor(t, "--max-connections=5", "--max-requests=6", "--max-streams=7")
	if err != nil {
		t.Fatal(err)
	}
	if l := s.traffic(0); l.MaxConnections != 5 || l.MaxRequests != 6 || l.MaxStreams != 7 {
		t.Errorf("the limits are %+v; want 5 connections, 6 requests, 7 streams", l)
	}
}

func TestFlagWinsOverEnvironment(t *testing.T) {
	t.Setenv("ROLLCALL_SETTLE", "1s")
	t.Setenv("ROLLCALL_LISTEN", "127.0.0.1:1")
	s, _, err := parseFor(t, "--settle=2s")
	if err != nil || time.Duration(s.Settle) != 2*time.Second || s.Listen != "127.0.0.1:1" {
		t.Errorf("settle %v, listen %s, %v; want 2s of the flag, the environment's address", time.Duration(s.Settle), s.Listen, err)
	}
}

func TestWrongSettingIsNamedWithItsValueAndWhatIsWanted(t *testing.T) {
	for _, tc := range []struct{ name, value, want string }{
		{"ROLLCALL_LISTEN", "8080", "host:port"},
		{"ROLLCALL_LISTEN", ":http", "host:port"},
		{"ROLLCALL_LISTEN", ":65536", "port from 0 to 65535"},
		{"ROLLCALL_ADMIN_LISTEN", "::1:80", "host:port"},
		{"ROLLCALL_ADVERTISE_HOST", "http://x", "a host name"},
		{"ROLLCALL_ADVERTISE_HOST", "[::1]", "IPv6 without brackets"},
		{"ROLLCALL_LOG_LEVEL", "loud", "debug, info, warn, error"},
		{"ROLLCALL_LOG_FORMAT", "xml", "auto, json, text"},
		{"ROLLCALL_DIAL_TIMEOUT", "300", "such as 300ms"},
		{"ROLLCALL_DIAL_TIMEOUT", "-1s", "from 1ms"},
		{"ROLLCALL_DIAL_TIMEOUT", "1h", "to 1m"},
		{"ROLLCALL_STALE_FOR", "-1s", "from 0s"},
		{"ROLLCALL_MAX_CONNECTIONS", "0", "from 1"},
		{"ROLLCALL_MAX_CONNECTIONS", "many", "a number"},
		{"ROLLCALL_MAX_HEADER_BYTES", "1000000", "to 65536"},
		{"ROLLCALL_TLS_CALLERS", "gateway", "ROLLCALL_TLS_CERT besides"},
		{"ROLLCALL_SETTLE", "4s", "ROLLCALL_SETTLE_MAX"},
		{"ROLLCALL_SETTLE_MAX", "1m", "ROLLCALL_DRAIN_TIMEOUT"},
	} {
		t.Run(tc.name+"="+tc.value, func(t *testing.T) {
			t.Setenv(tc.name, tc.value)
			var out, errs bytes.Buffer
			code := Run(t.Context(), Spec{Name: "user"}, nil, Process{Stdout: &out, Stderr: &errs})
			got := errs.String()
			if code != ExitSetting || strings.Count(got, "\n") != 1 {
				t.Fatalf("exit %d, %q; want exit %d and one line", code, got, ExitSetting)
			}
			for _, part := range []string{"user: " + tc.name + " (--", "want ", tc.want} {
				if !strings.Contains(got, part) {
					t.Errorf("%q lacks %q", got, part)
				}
			}
			if !strings.Contains(got, tc.value) && tc.name != "ROLLCALL_SETTLE_MAX" {
				t.Errorf("%q does not name the value %s", got, tc.value)
			}
		})
	}
}

func TestWrongConsulAddressStopsTheStart(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "ftp://consul:8500")
	var out, errs bytes.Buffer
	code := Run(t.Context(), Spec{Name: "user"}, nil, Process{Stdout: &out, Stderr: &errs})
	if got := errs.String(); code != ExitSetting || strings.Count(got, "\n") != 1 || !strings.Contains(got, "ftp://consul:8500") {
		t.Errorf("exit %d, %q; want exit %d and one line with the address", code, got, ExitSetting)
	}
}

func TestUnknownFlagsAndCommandsAreWrongSettings(t *testing.T) {
	for _, arg := range []string{"--no-such-flag", "no-such-command"} {
		var out, errs bytes.Buffer
		code := Run(t.Context(), Spec{Name: "user"}, []string{arg}, Process{Stdout: &out, Stderr: &errs})
		if code != ExitSetting || strings.Count(errs.String(), "\n") != 1 || !strings.Contains(errs.String(), strings.TrimLeft(arg, "-")) {
			t.Errorf("%s: exit %d, %q; want exit %d and one line that names it", arg, code, errs.String(), ExitSetting)
		}
	}
}

// Every setting has its bounds in tags that the compiler does not check.
func TestEverySettingTakesItsDefaultAndRefusesNonsense(t *testing.T) {
	fields := reflect.VisibleFields(reflect.TypeFor[Settings]())
	if len(fields) < 20 {
		t.Fatalf("%d settings found", len(fields))
	}
	for _, f := range fields {
		env, value := f.Tag.Get("env"), f.Tag.Get("default")
		if env == "" || f.Tag.Get("help") == "" {
			t.Errorf("%s has no env or no help", f.Name)
		}
		if value == "${try_timeout}" {
			value = "400ms"
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Setenv(env, "") // as Compose passes on what nobody set
			empty, _, err := parseFor(t)
			if err != nil {
				t.Fatalf("empty: %v; want its default", err)
			}
			t.Setenv(env, value)
			set, _, err := parseFor(t)
			if err != nil {
				t.Fatalf("its default %q: %v", value, err)
			}
			if *set != *empty {
				t.Errorf("empty means %+v; want the default, %+v", empty, set)
			}
			if f.Type.Kind() == reflect.String && f.Type.Name() == "string" {
				return // free text
			}
			t.Setenv(env, "n/o:n-s e n s e")
			if _, _, err := parseFor(t); err == nil || !strings.Contains(err.Error(), env) {
				t.Errorf("nonsense: %v; want an error that names %s", err, env)
			}
		})
	}
}

func TestHelpAndVersionAreAnswered(t *testing.T) {
	for _, tc := range []struct{ arg, want string }{
		{"--help", "ROLLCALL_DIAL_TIMEOUT"},
		{"version", "user "},
	} {
		var out, errs bytes.Buffer
		code := Run(t.Context(), Spec{Name: "user", Describe: "Serves users."}, []string{tc.arg}, Process{Stdout: &out, Stderr: &errs})
		if code != ExitDrained || !strings.Contains(out.String(), tc.want) || errs.Len() > 0 {
			t.Errorf("%s: exit %d, %q, %q; want 0 and %q", tc.arg, code, out.String(), errs.String(), tc.want)
		}
	}
}
