// Package logging sets up slog: JSON for machines, text on a terminal, one line for
// each request, and the request's ID on every line that is logged with its context.
//
//	log, err := logging.New(logging.Config{Level: "info", Format: "auto", Output: os.Stderr})
//	server := &http.Server{Handler: logging.Handler(log, mux)} // a line for each request, and its ID
//	client := &http.Client{Transport: logging.PassRequestID(mesh.RoundTripper())}
//	log.InfoContext(r.Context(), "charged") // … request_id=…
//
// A slog.Logger of your own carries the ID too, if its handler is wrapped in
// [WithContextIDs]. Everything here may be used by any number of goroutines.
// Attributes are written as they are: keep secrets and bodies out of them.
package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// The formats of a line.
const (
	FormatAuto = "auto" // text if the output is a terminal, else JSON
	FormatJSON = "json" // one JSON object a line
	FormatText = "text" // key=value, for people
)

// Config says what is logged, how, and where to.
type Config struct {
	// Level is the least important level that is logged: debug, info, warn or
	// error, in any case. Empty means info.
	Level string
	// Format is auto, json or text. Empty means auto.
	Format string
	// Var, if it is not nil, is set to Level, and is what counts from then on: it can
	// be set to another level while the program runs (see LevelHandler). nil means
	// that Level stays.
	Var *slog.LevelVar
	// Context returns what else of a context its lines carry, as the IDs of its
	// trace. nil means nothing.
	Context func(context.Context) []slog.Attr
	// Output takes the lines, each in one Write. Nil means standard error.
	Output io.Writer
}

// New returns a logger whose lines carry the request ID of the context they
// are logged with. A time.Duration is written as milliseconds, and its key gets
// _ms at its end. The error is for a wrong setting only.
func New(cfg Config) (*slog.Logger, error) {
	level, err := ParseLevel(cfg.Level)
	if err != nil {
		return nil, err
	}
	out := cfg.Output
	if out == nil {
		out = os.Stderr
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: inMilliseconds}
	if cfg.Var != nil {
		cfg.Var.Set(level)
		options.Level = cfg.Var
	}
	var h slog.Handler
	switch cfg.Format {
	case FormatJSON:
		h = slog.NewJSONHandler(out, options)
	case FormatText:
		h = slog.NewTextHandler(out, options)
	case FormatAuto, "":
		if isTerminal(out) {
			h = slog.NewTextHandler(out, options)
		} else {
			h = slog.NewJSONHandler(out, options)
		}
	default:
		return nil, fmt.Errorf("logging: Format is %q; want auto, json or text", cfg.Format)
	}
	if cfg.Context != nil {
		return slog.New(WithContextIDs(h, cfg.Context)), nil
	}
	return slog.New(WithContextIDs(h)), nil
}

// inMilliseconds gives a duration its unit: JSON would have a number of nanoseconds.
func inMilliseconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindDuration {
		return a
	}
	return milliseconds(a.Key+"_ms", a.Value.Duration())
}

// milliseconds is how durations are written, to the microsecond.
func milliseconds(key string, d time.Duration) slog.Attr {
	return slog.Float64(key, float64(d.Microseconds())/1000)
}

// ParseLevel returns the level of that name: debug, info, warn or error, in
// any case. The empty name means info.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug, nil
	case "info", "":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("logging: Level is %q; want debug, info, warn or error", name)
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
