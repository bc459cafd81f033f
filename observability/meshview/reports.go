package meshview

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/clip"
	"github.com/rollcall-mesh/rollcall/observability/debug"
)

const (
	reportLimit = time.Second     // for one process's answer
	roundLimit  = 2 * time.Second // for all that are asked at a time; the others have the next one
	together    = 16              // asked at once
	maxDocument = 1 << 20         // bytes
	maxTrouble  = 200             // bytes of text
	// slowest is how seldom a process is asked that does not answer.
	slowest = 15 * time.Second
)

// report is what a process said of itself when it was last asked.
type report struct {
	doc      *document // nil if it gave none
	trouble  string    // why
	at       time.Time // when the answer came, or the failure
	clockOff time.Duration
	failures int // in a row
}

// due reports whether to ask again.
func (r report) due(now time.Time) bool {
	if r.failures == 0 {
		return true
	}
	return now.Sub(r.at) >= min(time.Second<<min(r.failures, 4), slowest)
}

// ours returns a time of the process by our clock; zero if that is none.
func (r report) ours(t time.Time) time.Time {
	t = t.Add(-r.clockOff)
	if y := t.Year(); y < 1 || y > 9999 { // which can't be written
		return time.Time{}
	}
	return t
}

// adminOf returns the address at which an instance gives its status; empty: it has
// none. The error says what is wrong with the one that it names.
func adminOf(i catalog.Instance) (string, error) {
	port, ok := i.Meta[debug.MetaAdmin]
	if !ok {
		return "", nil
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("its Meta %s is %q; want a port from 1 to 65535", debug.MetaAdmin, clip.To(20, port))
	}
	return net.JoinHostPort(i.Host, port), nil
}

// reports are those of all processes, by their addresses.
type reports struct {
	client *http.Client

	mu sync.Mutex // guards what follows
	by map[string]report
}

func newReports(transport http.RoundTripper) *reports {
	return &reports{
		by: map[string]report{},
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// of returns the report of a process as it is now; zero: it was not asked so far.
func (r *reports) of(addr string) report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[addr]
}

// round asks the processes at these addresses that are due, those first that answered
// the last time, and forgets the others. news is called for each answer that comes late,
// so that nobody waits for the slowest.
func (r *reports) round(ctx context.Context, addrs []string, news func()) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, roundLimit)
	defer cancel()
	places := make(chan struct{}, together)
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, addr := range r.choose(addrs, began) {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		asking.Go(func() {
			defer func() { <-places }()
			r.ask(ctx, addr)
			const late = 250 * time.Millisecond
			if time.Since(began) > late {
				news()
			}
		})
	}
}

// choose forgets all but these, and returns those that are due, in order.
func (r *reports) choose(addrs []string, now time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := make(map[string]report, len(addrs))
	var due []string
	for _, addr := range addrs {
		one, known := r.by[addr]
		if known {
			kept[addr] = one
		}
		if one.due(now) {
			due = append(due, addr)
		}
	}
	r.by = kept
	slices.SortStableFunc(due, func(a, b string) int {
		return cmp.Or(cmp.Compare(kept[a].failures, kept[b].failures), kept[a].at.Compare(kept[b].at))
	})
	return due
}

// ask asks one process.
func (r *reports) ask(ctx context.Context, addr string) {
	asking, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	sent := time.Now()
	doc, err := r.get(asking, addr)
	now := time.Now()
	if err != nil && ctx.Err() != nil && now.Sub(sent) < reportLimit {
		return // it had less time than the others: that says nothing of it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.by[addr] = report{trouble: clip.To(maxTrouble, why(err)), at: now, failures: r.by[addr].failures + 1}
		return
	}
	r.by[addr] = report{doc: doc, at: now, clockOff: clockOff(doc.At, sent, now)}
}

func (r *reports) get(ctx context.Context, addr string) (*document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/debug/discovery", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s at /debug/discovery", res.Status)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxDocument {
		return nil, fmt.Errorf("its status is larger than %d bytes", maxDocument)
	}
	return readDocument(text)
}

// why says what was wrong, without the address, which stands beside it.
func why(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer within " + reportLimit.String()
	}
	if at, ok := errors.AsType[*url.Error](err); ok {
		return at.Err.Error()
	}
	return err.Error()
}

// clockOff returns by how much a clock is ahead that said at between two times of ours:
// 0 for what is less than a second, or than the answer took.
func clockOff(at, sent, came time.Time) time.Duration {
	took := came.Sub(sent)
	off := at.Sub(sent.Add(took / 2))
	if off.Abs() < max(took, time.Second) {
		return 0
	}
	return off
}
