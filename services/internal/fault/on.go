//go:build faults

package fault

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/pause"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// Enabled says whether this is a test build.
const Enabled = true

// Traffic returns the handler of a traffic port, with the faults that are set.
func Traffic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch s := current.Load(); {
		case s == nil:
			next.ServeHTTP(w, r)
		case s.asked.Stream == r.URL.Path:
			r.Pattern = r.URL.Path // for logs and metrics
			stream(w, r)
		default:
			s.serve(w, r, next)
		}
	})
}

func (s *setting) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	s.begun.note(r.Header.Get(requestID))
	if s.asked.Renew {
		w.Header().Set("Connection", "close")
	}
	if !s.meant(r) {
		next.ServeHTTP(w, r)
		return
	}
	if err := s.wait(r.Context()); err != nil {
		problem.Write(w, r, problem.Of(err))
		return
	}
	if s.status != 0 {
		problem.Write(w, r, problem.New(s.status, "this answer was asked for, by PUT /faults"))
		return
	}
	next.ServeHTTP(w, r)
}

// meant reports whether status, delay and slots are for a request.
func (s *setting) meant(r *http.Request) bool {
	if s.asked.Method != "" && s.asked.Method != r.Method {
		return false
	}
	return !s.asked.Unkeyed || r.Header.Get("Idempotency-Key") == ""
}

// stream answers with a header, and stays until the client leaves. The
// server's limit on writing does not end it, for it writes nothing more.
func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return // the client has left
	}
	<-r.Context().Done()
}

// Now is the time by a clock that a test build can set wrong.
func Now() time.Time {
	if s := current.Load(); s != nil {
		return time.Now().Add(s.clock)
	}
	return time.Now()
}

// Point is where a test build can be made to crash.
func Point(name string) {
	if s := current.Load(); s != nil && s.crash == name {
		crash()
	}
}

// killed is the exit code that a shell shows for SIGKILL.
const killed = 137

// crash ends the process as SIGKILL does: no deferred function runs, and no
// buffer is written.
func crash() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	// The first process of a container is immune to its own SIGKILL
	// (pid_namespaces(7)).
	os.Exit(killed)
}

// wait takes the request through delay and slot, or returns why its context
// ended before.
func (s *setting) wait(ctx context.Context) error {
	if err := pause.For(ctx, s.delay, nil); err != nil {
		return err
	}
	if s.slots == nil {
		return nil
	}
	select { // a channel serves its senders in the order they came
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.slots }()
	return pause.For(ctx, s.hold, nil)
}
