//go:build faults

package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// current is the setting; nil while nothing is set. Now and Point are called
// from everywhere, so it can't be anything but the process's own.
var current atomic.Pointer[setting]

// setting is what was asked for, checked.
type setting struct {
	asked  wire
	status int // 0: none
	delay  time.Duration
	slots  chan struct{} // holds one element for each slot that is taken; nil: no limit
	hold   time.Duration
	clock  time.Duration
	crash  string
	// begun is nil unless executions are counted.
	begun *executions
}

// wire is the setting as JSON.
type wire struct {
	Status int    `json:"status,omitempty"`
	Delay  string `json:"delay,omitempty"`
	Slots  int    `json:"slots,omitempty"`
	Hold   string `json:"hold,omitempty"`
	Clock  string `json:"clock,omitempty"`
	Crash  string `json:"crash,omitempty"`

	Method  string `json:"method,omitempty"`
	Unkeyed bool   `json:"unkeyed,omitempty"`
	Renew   bool   `json:"renew,omitempty"`
	Count   bool   `json:"count,omitempty"`
	Stream  string `json:"stream,omitempty"`
}

// Bounds of the setting.
const (
	maxBody  = 4 << 10
	maxWait  = time.Hour
	maxClock = 10 * 365 * 24 * time.Hour
	maxSlots = 1 << 16
)

// Admin returns the handler of the admin port, with /faults.
func Admin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/faults":
			r.Pattern = r.URL.Path // for the log
			admin(w, r)
		case "/faults/executions":
			r.Pattern = r.URL.Path
			showExecutions(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func admin(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		show(w)
	case http.MethodPut:
		s, err := read(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			p := problem.Of(err)
			if p.Status == http.StatusInternalServerError {
				p = problem.New(http.StatusBadRequest, "%v", err)
			}
			problem.Write(w, r, p)
			return
		}
		current.Store(s)
		show(w)
	default:
		p := problem.New(http.StatusMethodNotAllowed, "/faults does not take %s; it takes GET and PUT", r.Method)
		p.Header = http.Header{"Allow": {"GET, HEAD, PUT"}}
		problem.Write(w, r, p)
	}
}

func show(w http.ResponseWriter) {
	var asked wire
	if s := current.Load(); s != nil {
		asked = s.asked
	}
	answer(w, asked)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the reader has gone: nobody is left to tell
}

// read returns the setting of a body, nil if nothing is to fail. An error
// names the field.
func read(body io.Reader) (*setting, error) {
	in := json.NewDecoder(body)
	in.DisallowUnknownFields()
	var asked wire
	if err := in.Decode(&asked); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, err
		}
		if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && kind.Field != "" {
			return nil, fmt.Errorf("the field %s is a %s; want a %s", kind.Field, kind.Value, kind.Type)
		}
		return nil, fmt.Errorf("the body is no setting of faults: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the body goes on after the JSON object; want one object and nothing else")
	}
	if asked == (wire{}) {
		return nil, nil //nolint:nilnil // nil is the setting in which nothing fails
	}
	return asked.check()
}

func (w wire) check() (*setting, error) {
	s := &setting{asked: w, status: w.Status, crash: w.Crash}
	for _, d := range []struct {
		name      string
		value     string
		to        *time.Duration
		low, high time.Duration
	}{
		{"delay", w.Delay, &s.delay, 0, maxWait},
		{"hold", w.Hold, &s.hold, 0, maxWait},
		{"clock", w.Clock, &s.clock, -maxClock, maxClock},
	} {
		if d.value == "" {
			continue
		}
		v, err := time.ParseDuration(d.value)
		if err != nil || v < d.low || v > d.high {
			return nil, fmt.Errorf("the field %s is %q; want a time from %v to %v, such as 300ms", d.name, d.value, d.low, d.high)
		}
		*d.to = v
	}
	switch {
	case w.Status != 0 && (w.Status < 400 || w.Status > 599):
		return nil, fmt.Errorf("the field status is %d; want 400 to 599, or 0 for none", w.Status)
	case w.Slots < 0 || w.Slots > maxSlots:
		return nil, fmt.Errorf("the field slots is %d; want 1 to %d, or 0 for no limit", w.Slots, maxSlots)
	case w.Method != strings.ToUpper(w.Method):
		return nil, fmt.Errorf("the field method is %q; want it in capitals, such as POST", w.Method)
	case (w.Method != "" || w.Unkeyed) && w.Status == 0 && s.delay == 0 && w.Slots == 0:
		return nil, errors.New("the fields method and unkeyed say which requests; want status, delay or slots to say what becomes of them")
	case w.Stream != "" && !strings.HasPrefix(w.Stream, "/"):
		return nil, fmt.Errorf("the field stream is %q; want a path, such as /orders/stream", w.Stream)
	case w.Slots == 0 && s.hold > 0:
		return nil, fmt.Errorf("the field hold is %q without slots; want both, or delay", w.Hold)
	}
	if w.Slots > 0 {
		s.slots = make(chan struct{}, w.Slots)
	}
	if w.Count {
		s.begun = &executions{of: map[string]int{}}
	}
	return s, nil
}
