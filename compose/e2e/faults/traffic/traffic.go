// Package traffic is the steady load of a fault's row: an open loop of GETs, and one of POSTs, that
// remembers every request with what became of it.
//
// vegeta paces and sends. What this package adds is the judgement of each answer (the right body, from the right
// service) and the memory. A request that fails is counted as failed, also when Go's own client would have hidden
// it by sending it once more over another connection.
package traffic

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// Config of a load.
type Config struct {
	// Name begins every X-Request-Id, key and item of the load; it must be unique in the life of a fleet.
	Name string
	// Bases are URLs of the gateway. With more than one a client takes them in turn, and when one can't be
	// reached or breaks off it tries the next one, once. Required.
	Bases []string
	// Gets and Posts are requests a second, 0 to 10,000. 0 means none.
	Gets, Posts int
	// Unkeyed leaves the POSTs without an Idempotency-Key.
	Unkeyed bool
	// User whose orders the POSTs make; it must exist, and nobody else's POST may be for it.
	User int64
	// Timeout of one request, from before the dial to the last byte of the answer. 0 means 5s.
	Timeout time.Duration
}

func (c *Config) check() error {
	switch {
	case c.Name == "":
		return errors.New("traffic: Name is empty; want one")
	case len(c.Bases) == 0:
		return errors.New("traffic: Bases is empty; want URLs of the gateway")
	case c.Gets < 0 || c.Gets > 10000:
		return fmt.Errorf("traffic: Gets is %d; want 0 to 10000 a second", c.Gets)
	case c.Posts < 0 || c.Posts > 10000:
		return fmt.Errorf("traffic: Posts is %d; want 0 to 10000 a second", c.Posts)
	case c.Timeout < 0:
		return fmt.Errorf("traffic: Timeout is %v; want none below 0", c.Timeout)
	}
	return nil
}

// Load is one that was started. It may be used by several goroutines.
type Load struct {
	Log

	cfg       Config
	transport *http.Transport
	client    *http.Client
	readers   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	stopped bool
	attacks []*vegeta.Attacker
}

// Start begins to send. Stop must be called.
func Start(cfg Config) (*Load, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	l := &Load{cfg: cfg, transport: &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}}
	l.client = &http.Client{
		Transport:     &client{next: l.transport, bases: cfg.Bases},
		Timeout:       cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cfg.Gets > 0 {
		l.attack("get", cfg.Gets, 0, l.get)
	}
	if cfg.Posts > 0 {
		l.attack("post", cfg.Posts, 0, l.post)
	}
	return l, nil
}

// Extra sends rate more GETs of orders a second for a while, beside the steady load. Its samples' Stream is
// "extra". It returns at once.
func (l *Load) Extra(rate int, lasts time.Duration) {
	l.attack("extra", rate, lasts, func(n int64) vegeta.Target {
		return vegeta.Target{Method: http.MethodGet, URL: l.base(n) + OrdersPath, Header: l.header("extra", n)}
	})
}

// Stop sends nothing more and waits for what is in flight. It may be called twice.
func (l *Load) Stop() {
	l.mu.Lock()
	l.stopped = true
	for _, a := range l.attacks {
		a.Stop()
	}
	l.mu.Unlock()
	l.readers.Wait()
	l.transport.CloseIdleConnections()
}

// attack sends what shot says, rate times a second; lasts 0 means until Stop.
func (l *Load) attack(stream string, rate int, lasts time.Duration, shot func(n int64) vegeta.Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	// As many workers as can wait for an answer at once, so that those that hang don't slow the loop down.
	most := uint64(float64(rate)*l.cfg.Timeout.Seconds()) + 50
	a := vegeta.NewAttacker(vegeta.Client(l.client), vegeta.Workers(10), vegeta.MaxWorkers(most), vegeta.MaxBody(1<<20))
	l.attacks = append(l.attacks, a)
	var sent atomic.Int64
	results := a.Attack(func(t *vegeta.Target) error {
		*t = shot(sent.Add(1) - 1)
		return nil
	}, vegeta.Rate{Freq: rate, Per: time.Second}, lasts, "")
	l.readers.Go(func() {
		for r := range results {
			l.add(l.judge(stream, r))
		}
	})
}

func (l *Load) base(n int64) string { return l.cfg.Bases[n%int64(len(l.cfg.Bases))] }

// header names the request, so that its failure can be found in the servers' logs.
func (l *Load) header(stream string, n int64) http.Header {
	return http.Header{"X-Request-Id": {fmt.Sprintf("%s-%s-%d", l.cfg.Name, stream, n)}}
}

func (l *Load) get(n int64) vegeta.Target {
	path := OrdersPath
	if n%4 == 0 {
		path = UsersPath
	}
	return vegeta.Target{Method: http.MethodGet, URL: l.base(n) + path, Header: l.header("get", n)}
}

func (l *Load) post(n int64) vegeta.Target {
	h := l.header("post", n)
	h.Set("Content-Type", "application/json")
	if !l.cfg.Unkeyed {
		h.Set("Idempotency-Key", `"`+h.Get("X-Request-Id")+`"`)
	}
	return vegeta.Target{
		Method: http.MethodPost,
		URL:    fmt.Sprintf("%s/orders/%d", l.base(n), l.cfg.User),
		Body:   fmt.Appendf(nil, `{"item":%q}`, h.Get("X-Request-Id")),
		Header: h,
	}
}
