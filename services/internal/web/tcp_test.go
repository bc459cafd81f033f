package web_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// tcp serves h on real TCP, for what a pipe can't do: to close one half of a
// connection. It returns the server's log and a dialer.
func tcp(t *testing.T, l web.Limits, h http.Handler) (log *lines, dial func() *net.TCPConn) {
	t.Helper()
	log = &lines{}
	server := web.New(web.Config{Limits: l, Log: slog.New(logging.WithContextIDs(slog.NewJSONHandler(log, nil)))})
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(at, h); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return log, func() *net.TCPConn {
		t.Helper()
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", at.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
}

// rest reads a connection to its end, as long as the server keeps it open.
func rest(t *testing.T, c net.Conn) string {
	t.Helper()
	got, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		t.Errorf("read the connection: %v, after %q", err, got)
	}
	return string(got)
}
