package meshview

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

const (
	heartbeat = 15 * time.Second // between two signs of life on a stream
	// takeLimit is how long a viewer may take to take what is sent.
	takeLimit = 10 * time.Second
	// comeback is after how long a browser is to come back to a stream that broke.
	comeback = 2 * time.Second
	// fresh is how many of the latest events a viewer gets that has none.
	fresh = 100
)

// servePicture serves the latest picture.
func (v *View) servePicture(w http.ResponseWriter, _ *http.Request) {
	v.answer(w, v.latest())
}

// serveEvents serves what happened after an event.
func (v *View) serveEvents(w http.ResponseWriter, r *http.Request) {
	after, err := number(r.URL.Query().Get("after"))
	if err != nil {
		problem.Write(w, r, problem.New(http.StatusBadRequest, "after %v", err))
		return
	}
	v.look()
	v.answer(w, append([]Event{}, v.events(after)...))
}

// number reads the number of an event; empty is 0.
func number(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("is %q; want the number of an event", bounded(text))
	}
	return n, nil
}

func (v *View) answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(v.json(value), '\n')) // a reader that has gone needs no answer
}

// serveStream sends Server-Sent Events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html): "picture" for each
// picture, the latest first, and "happened" for each event, with its number as the ID.
// Who comes back with the ID of the last one gets what was missed.
func (v *View) serveStream(w http.ResponseWriter, r *http.Request) {
	after, err := number(r.Header.Get("Last-Event-ID"))
	if err != nil {
		problem.Write(w, r, problem.New(http.StatusBadRequest, "Last-Event-ID %v", err))
		return
	}
	if !v.enter() {
		problem.Write(w, r, problem.Unavailable(nil, "%d viewers look at the page, which is the limit", v.cfg.Viewers))
		return
	}
	defer v.leave()
	v.look()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
	s := stream{w: w, control: http.NewResponseController(w), after: after}
	if after == 0 {
		s.after = v.timeline.before(fresh)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(v.ctx, func() { //nolint:contextcheck // Close ends the stream as well
		defer close(ended)
		cancel()
		_ = s.control.SetWriteDeadline(time.Unix(1, 0)) // a viewer that reads nothing holds up no Close
	})
	defer func() {
		if !stop() {
			<-ended // what it uses is the handler's
		}
	}()
	for ctx.Err() == nil {
		now := v.current.Load()
		if s.send(ctx, v, now) != nil {
			return
		}
		s.wait(ctx, now)
	}
}

// enter counts a viewer, if there is room for one.
func (v *View) enter() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed || v.viewers >= v.cfg.Viewers {
		return false
	}
	v.viewers++
	v.working.Add(1)
	return true
}

func (v *View) leave() {
	v.mu.Lock()
	v.viewers--
	v.looked = time.Now()
	v.mu.Unlock()
	v.working.Done()
}

// stream is what one viewer gets.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	after   uint64     // number of the last event that was sent
	sent    *published // the last picture that was sent
	begun   bool
	idle    bool // nothing was sent for a heartbeat's time
}

// send sends what the viewer has not got, and a sign of life if that is nothing.
func (s *stream) send(ctx context.Context, v *View, now *published) error {
	// In place of the server's own limit. Over HTTP/2 one ends the stream also while
	// nothing is sent, so it is lifted. Where there are none, a viewer can't be cut off.
	_ = s.control.SetWriteDeadline(time.Now().Add(takeLimit))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	defer func() { _ = s.control.SetWriteDeadline(time.Time{}) }()
	if !s.begun {
		s.begun = true
		if err := s.write("retry: %d\n\n", comeback.Milliseconds()); err != nil {
			return err
		}
	}
	events := v.events(s.after)
	for _, e := range events {
		if err := s.write("id: %d\nevent: happened\ndata: %s\n\n", e.Seq, v.json(e)); err != nil {
			return err
		}
		s.after = e.Seq
	}
	switch {
	case now.picture != nil && now != s.sent:
		s.sent = now
		if err := s.write("event: picture\ndata: %s\n\n", now.text()); err != nil {
			return err
		}
	case len(events) == 0 && s.idle:
		if err := s.write(": still here\n\n"); err != nil {
			return err
		}
	}
	return s.control.Flush()
}

func (s *stream) write(format string, args ...any) error {
	_, err := fmt.Fprintf(s.w, format, args...)
	return err
}

// wait waits for another picture, or for the time of a sign of life.
func (s *stream) wait(ctx context.Context, now *published) {
	timer := time.NewTimer(heartbeat)
	defer timer.Stop()
	s.idle = false
	select {
	case <-now.next:
	case <-timer.C:
		s.idle = true
	case <-ctx.Done():
	}
}
