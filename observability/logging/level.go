package logging

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// maxLevelBody is far more than the longest name of a level, in bytes.
const maxLevelBody = 64

// LevelHandler shows the level that is logged, and sets it:
//
//	mux.Handle("/debug/level", logging.LevelHandler(level, log))
//
// GET answers {"level":"info"}; PUT takes the name of a level as its body, sets it for
// this process until it ends, says so in the log, and answers as GET does. Serve it where
// operators are, and nobody else.
func LevelHandler(level *slog.LevelVar, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
		case http.MethodPut:
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevelBody))
			name := strings.TrimSpace(string(body))
			to, wrong := ParseLevel(name)
			if err != nil || wrong != nil || name == "" {
				problem.Write(w, r, problem.New(http.StatusBadRequest, "the body is %q; want debug, info, warn or error", name))
				return
			}
			from := level.Level()
			// By the lower one of the two the line is seen.
			level.Set(min(from, to))
			log.WarnContext(r.Context(), "the level of the log was changed", "from", levelName(from), "to", levelName(to))
			level.Set(to)
		default:
			w.Header().Set("Allow", "GET, HEAD, PUT")
			problem.Write(w, r, problem.New(http.StatusMethodNotAllowed, "%s is not done here; want GET or PUT", r.Method))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(map[string]string{"level": levelName(level.Level())}) // a reader that has gone needs no answer
	})
}

func levelName(l slog.Level) string { return strings.ToLower(l.String()) }
