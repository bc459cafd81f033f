package logging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/observability/logging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func line(t *testing.T, out *bytes.Buffer) map[string]any {
	t.Helper()
	got := map[string]any{}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("the line is no JSON object: %v\n%s", err, out)
	}
	delete(got, "time")
	return got
}

func TestEachLineCarriesTheRequestIDOfItsContext(t *testing.T) {
	ctx := logging.WithRequestID(t.Context(), "abc-1")
	for name, tc := range map[string]struct {
		log  func(*slog.Logger)
		want map[string]any
	}{
		"plain": {
			func(l *slog.Logger) { l.InfoContext(ctx, "hello", "n", 1) },
			map[string]any{"level": "INFO", "msg": "hello", "n": 1.0, "request_id": "abc-1"},
		},
		"no ID": {
			func(l *slog.Logger) { l.Info("hello") },
			map[string]any{"level": "INFO", "msg": "hello"},
		},
		"attributes of the logger": {
			func(l *slog.Logger) { l.With("a", 1).InfoContext(ctx, "hello") },
			map[string]any{"level": "INFO", "msg": "hello", "a": 1.0, "request_id": "abc-1"},
		},
		"not inside an open group": {
			func(l *slog.Logger) {
				l.With("a", 1).WithGroup("g").With("b", 2).WithGroup("h").InfoContext(ctx, "hello", "c", 3)
			},
			map[string]any{
				"level": "INFO", "msg": "hello", "a": 1.0, "request_id": "abc-1",
				"g": map[string]any{"b": 2.0, "h": map[string]any{"c": 3.0}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log, err := logging.New(logging.Config{Output: &out})
			if err != nil {
				t.Fatal(err)
			}
			tc.log(log)
			if diff := cmp.Diff(tc.want, line(t, &out)); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLineCarriesWhatElseIsSaidOfItsContext(t *testing.T) {
	var out bytes.Buffer
	log, err := logging.New(logging.Config{Output: &out, Context: func(ctx context.Context) []slog.Attr {
		if logging.RequestID(ctx) == "" {
			return nil
		}
		return []slog.Attr{slog.String("trace_id", "4bf9")}
	}})
	if err != nil {
		t.Fatal(err)
	}
	log.With("a", 1).WithGroup("g").InfoContext(logging.WithRequestID(t.Context(), "id"), "x", "b", 2)
	want := map[string]any{"level": "INFO", "msg": "x", "a": 1.0, "request_id": "id", "trace_id": "4bf9", "g": map[string]any{"b": 2.0}}
	if diff := cmp.Diff(want, line(t, &out)); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
	out.Reset()
	log.Info("x")
	if diff := cmp.Diff(map[string]any{"level": "INFO", "msg": "x"}, line(t, &out)); diff != "" {
		t.Errorf("line without a request (-want +got):\n%s", diff)
	}
}

func TestDurationHasItsUnitInItsName(t *testing.T) {
	var out bytes.Buffer
	log, err := logging.New(logging.Config{Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	log.WithGroup("g").Info("ejected", "for", 1500*time.Microsecond, "n", 2)
	want := map[string]any{"level": "INFO", "msg": "ejected", "g": map[string]any{"for_ms": 1.5, "n": 2.0}}
	if diff := cmp.Diff(want, line(t, &out)); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
}

func TestTwoLoggersOfOneGroupDoNotShareAttributes(t *testing.T) {
	var out bytes.Buffer
	log, err := logging.New(logging.Config{Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	ctx := logging.WithRequestID(t.Context(), "id")
	parent := log.WithGroup("g").With("a", 1).With("b", 1)
	one, two := parent.With("one", 1), parent.With("two", 2)
	one.InfoContext(ctx, "x")
	want := map[string]any{"level": "INFO", "msg": "x", "request_id": "id", "g": map[string]any{"a": 1.0, "b": 1.0, "one": 1.0}}
	if diff := cmp.Diff(want, line(t, &out)); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
	_ = two
}

func TestHandlerKeepsTheRulesOfSlog(t *testing.T) {
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return logging.WithContextIDs(slog.NewJSONHandler(&out, nil))
	}, func(t *testing.T) map[string]any {
		got := map[string]any{}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return got
	})
}

func TestLevelAndFormatAreHonoured(t *testing.T) {
	var out bytes.Buffer
	log, err := logging.New(logging.Config{Level: "WARN", Format: logging.FormatText, Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("too small")
	log.Warn("just right")
	if got := out.String(); strings.Contains(got, "too small") || !strings.Contains(got, `level=WARN msg="just right"`) {
		t.Errorf("got %q; want the warning only, as text", got)
	}
}

func TestAutoMeansJSONWhereNobodyReads(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log, err := logging.New(logging.Config{Format: logging.FormatAuto, Output: f})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello")
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(got) {
		t.Errorf("got %q; want JSON in a file", got)
	}
}

func TestWrongSettingIsNamedWithWhatIsWanted(t *testing.T) {
	for _, cfg := range []logging.Config{{Level: "loud"}, {Format: "xml"}} {
		_, err := logging.New(cfg)
		if err == nil || !strings.Contains(err.Error(), "want ") {
			t.Errorf("New(%+v) = %v; want an error that says what is wanted", cfg, err)
		}
	}
	if id := logging.RequestID(context.Background()); id != "" {
		t.Errorf("RequestID of an empty context is %q; want none", id)
	}
}
