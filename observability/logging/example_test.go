package logging_test

import (
	"context"
	"log/slog"
	"os"

	"github.com/rollcall-mesh/rollcall/observability/logging"
)

func ExampleWithContextIDs() {
	quiet := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{} // the time would differ at each run
		}
		return a
	}}
	log := slog.New(logging.WithContextIDs(slog.NewTextHandler(os.Stdout, quiet)))

	ctx := logging.WithRequestID(context.Background(), "7d3f")
	log.InfoContext(ctx, "served", "status", 200)
	// Output: level=INFO msg=served status=200 request_id=7d3f
}
