package logging_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/observability/logging"
)

func TestLevelIsShownAndChangedWhileTheProgramRuns(t *testing.T) {
	var out bytes.Buffer
	level := new(slog.LevelVar)
	log, err := logging.New(logging.Config{Level: "warn", Var: level, Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	h := logging.LevelHandler(level, log)
	for _, c := range []struct {
		method, body string
		status       int
		want         string
		level        slog.Level // afterwards
		told         bool
	}{
		{"GET", "", 200, `{"level":"warn"}`, slog.LevelWarn, false},
		{"PUT", "debug\n", 200, `{"level":"debug"}`, slog.LevelDebug, true},
		{"PUT", "ERROR", 200, `{"level":"error"}`, slog.LevelError, true},
		{"PUT", "loud", 400, `the body is \"loud\"; want debug, info, warn or error`, slog.LevelError, false},
		{"PUT", "", 400, "want debug, info, warn or error", slog.LevelError, false},
		{"PUT", strings.Repeat("info", 1000), 400, "want debug, info, warn or error", slog.LevelError, false},
		{"POST", "info", 405, "want GET or PUT", slog.LevelError, false},
		{"PUT", "info", 200, `{"level":"info"}`, slog.LevelInfo, true},
	} {
		out.Reset()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, "/debug/level", strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %.10q: got %d %s; want %d %s", c.method, c.body, w.Code, w.Body, c.status, c.want)
		}
		if level.Level() != c.level || strings.Contains(out.String(), "the level of the log was changed") != c.told {
			t.Errorf("%s %.10q: the level is %v, and the log says %q; want %v, told of: %v", c.method, c.body, level.Level(), &out, c.level, c.told)
		}
		if allow := w.Header().Get("Allow"); (c.status == http.StatusMethodNotAllowed) != (allow != "") {
			t.Errorf("%s: Allow is %q", c.method, allow)
		}
	}
}
