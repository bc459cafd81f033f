// Package load sends a steady stream of requests and remembers each one that failed.
//
// The loop is open: request n is due at start + n/rate, whatever became of those before it, so a server that
// hangs is not spared by a client that waits for it. When the machine was busy elsewhere, the requests that
// became due meanwhile are sent at once. A run is bounded in time (Config.For) and in each request
// (Config.Timeout), so that requests in flight never exceed rate × timeout.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// bodyLimit bounds what is read of one answer.
const bodyLimit = 4 << 20

// Config of a run.
type Config struct {
	// Name is the prefix of each request's X-Request-Id, by which a failure can be found in the servers' logs.
	Name string
	// Rate is requests a second, 1 to 10,000.
	Rate int
	// Timeout of one request, from before the dial to the last byte of the answer. 0 means 5s.
	Timeout time.Duration
	// For ends the run by itself. 0 means 2 minutes. A run that ended so is marked Exhausted.
	For time.Duration
	// Shot says what request n (counted from 0) is and which answer is right. Required.
	Shot func(n int) Shot
}

// Shot is one request and the judgement of its answer.
type Shot struct {
	Method string
	URL    string
	Body   string // sent as application/json if it is not empty
	// Check judges an answer. nil: any 2xx is right.
	Check func(*Answer) error
}

// Answer is a response that was read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Failure is a request that got no answer or a wrong one.
type Failure struct {
	N         int
	At        time.Time // when it was sent
	Took      time.Duration
	Shot      Shot
	RequestID string
	Answer    *Answer // nil if none came
	Err       error
}

// String is one line.
func (f Failure) String() string {
	s := fmt.Sprintf("%s %s %s (%s) after %s: %v", f.At.Format("15:04:05.000"), f.Shot.Method, f.Shot.URL, f.RequestID, f.Took.Round(time.Millisecond), f.Err)
	if f.Answer != nil {
		s += fmt.Sprintf("; status %d, served by %q, body %.300s", f.Answer.Status, f.Answer.Header.Get("X-Served-By"), strings.TrimSpace(f.Answer.Body))
	}
	return s
}

// Report of a run.
type Report struct {
	Sent      int
	Elapsed   time.Duration
	Exhausted bool           // it ended by Config.For, before Stop
	ServedBy  map[string]int // right answers by X-Served-By
	Degraded  int            // right answers that carried X-Degraded
	Slowest   time.Duration  // of the right answers
	Failures  []Failure
	OK        []Shot // those that were answered rightly, in no order
}

// List is at most n failures, one a line.
func (r *Report) List(n int) string {
	var b strings.Builder
	for i, f := range r.Failures {
		if i == n {
			fmt.Fprintf(&b, "  … and %d more\n", len(r.Failures)-n)
			break
		}
		fmt.Fprintf(&b, "  %s\n", f)
	}
	return b.String()
}

// Run is a load that was started.
type Run struct {
	cfg    Config
	client *http.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex // guards report
	report Report
}

// Start begins to send. It returns an error for a wrong Config only. Stop must be called.
func Start(ctx context.Context, cfg Config) (*Run, error) {
	if cfg.Rate < 1 || cfg.Rate > 10000 {
		return nil, fmt.Errorf("load: Rate is %d; want 1 to 10000", cfg.Rate)
	}
	if cfg.Shot == nil {
		return nil, errors.New("load: Shot is nil; want a function")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.For == 0 {
		cfg.For = 2 * time.Minute
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Run{
		cfg:    cfg,
		cancel: cancel,
		done:   make(chan struct{}),
		client: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
	}
	r.report.ServedBy = map[string]int{}
	go r.loop(ctx)
	return r, nil
}

// Stop sends nothing more, waits for what is in flight, and reports. It may be called twice.
func (r *Run) Stop() *Report {
	r.cancel()
	<-r.done
	return &r.report
}

// Sent is how many requests have been sent so far.
func (r *Run) Sent() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report.Sent
}

func (r *Run) loop(ctx context.Context) {
	defer close(r.done)
	defer r.client.CloseIdleConnections()
	var inFlight sync.WaitGroup
	defer inFlight.Wait()

	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() { // before the wait above
		r.mu.Lock()
		r.report.Elapsed = time.Since(start)
		r.mu.Unlock()
	}()
	for n := 0; ; n++ {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(r.cfg.Rate))
		if due.Sub(start) >= r.cfg.For {
			r.mu.Lock()
			r.report.Exhausted = ctx.Err() == nil
			r.mu.Unlock()
			return
		}
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		r.report.Sent++
		r.mu.Unlock()
		// Stop ends the sending, not the requests in flight: each gets its whole timeout.
		inFlight.Go(func() { r.send(context.WithoutCancel(ctx), n) })
	}
}

func (r *Run) send(ctx context.Context, n int) {
	shot := r.cfg.Shot(n)
	f := Failure{N: n, At: time.Now(), Shot: shot, RequestID: fmt.Sprintf("%s-%d", r.cfg.Name, n)}
	f.Answer, f.Err = r.do(ctx, shot, f.RequestID)
	f.Took = time.Since(f.At)
	if f.Err == nil {
		f.Err = check(shot, f.Answer)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if f.Err != nil {
		r.report.Failures = append(r.report.Failures, f)
		return
	}
	r.report.OK = append(r.report.OK, shot)
	r.report.ServedBy[f.Answer.Header.Get("X-Served-By")]++
	if f.Answer.Header.Get("X-Degraded") != "" {
		r.report.Degraded++
	}
	r.report.Slowest = max(r.report.Slowest, f.Took)
}

func (r *Run) do(ctx context.Context, shot Shot, id string) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	var body io.Reader
	if shot.Body != "" {
		body = strings.NewReader(shot.Body)
	}
	req, err := http.NewRequestWithContext(ctx, shot.Method, shot.URL, body)
	if err != nil {
		return nil, err
	}
	// Our own transport must not hide a broken connection by sending again: with GetBody unset it cannot
	// repeat a request that has a body.
	req.GetBody = nil
	req.Header.Set("X-Request-Id", id)
	if shot.Body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, bodyLimit))
	if err != nil {
		return nil, fmt.Errorf("read the body of a %d: %w", resp.StatusCode, err)
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}, nil
}

func check(shot Shot, a *Answer) error {
	if shot.Check != nil {
		return shot.Check(a)
	}
	if a.Status < 200 || a.Status > 299 {
		return fmt.Errorf("got status %d; want 2xx", a.Status)
	}
	return nil
}
