package traffic

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// Paths of the GETs.
const (
	OrdersPath = "/orders/1"
	UsersPath  = "/users/1"
)

// right is what each GET is answered, byte for byte: nothing posts to user 1.
var right = map[string]string{
	OrdersPath: `[{"order_id":101,"item":"Laptop"},{"order_id":102,"item":"Mouse"}]` + "\n",
	UsersPath:  `{"id":1,"name":"Alice"}` + "\n",
}

// Sample is one request and what became of it.
type Sample struct {
	Stream   string    // "get", "post" or "extra"
	At       time.Time // when it was sent
	Took     time.Duration
	Method   string
	Path     string
	ID       string // its X-Request-Id, where an answer told it
	Status   int    // 0: no answer
	ServedBy string // the instance that answered, by X-Served-By
	Degraded bool   // it says that another service could not be asked
	Other    bool   // answered by the other base
	Problem  bool   // a failure told as application/problem+json
	Retry    string // its Retry-After
	Wrong    bool   // answered 2xx, and with something else than the right thing
	Err      string // why it failed; "": it did not
	Item     string // that an acknowledged POST made
	Location string // of it
}

// Failed reports whether it got no answer, a refusal or a wrong one.
func (s *Sample) Failed() bool { return s.Err != "" }

// End is when its answer was read, or it was given up.
func (s *Sample) End() time.Time { return s.At.Add(s.Took) }

func (s *Sample) String() string {
	return fmt.Sprintf("%s %s %s (%s) after %v, served by %q: %s", s.At.Format("15:04:05.000"), s.Method, s.Path, s.ID,
		s.Took.Round(time.Millisecond), s.ServedBy, s.Err)
}

// judge makes a sample of a result.
func (l *Load) judge(stream string, r *vegeta.Result) Sample {
	s := Sample{
		Stream: stream, At: r.Timestamp, Took: r.Latency, Method: r.Method, Status: int(r.Code),
		ID: r.Headers.Get("X-Request-Id"), ServedBy: r.Headers.Get("X-Served-By"),
		Degraded: r.Headers.Get("X-Degraded") != "", Other: r.Headers.Get(OtherPortHeader) != "",
		Problem: strings.HasPrefix(r.Headers.Get("Content-Type"), "application/problem+json"), Retry: r.Headers.Get("Retry-After"),
	}
	if u, err := url.Parse(r.URL); err == nil {
		s.Path = u.Path
	}
	switch {
	case s.Status == 0:
		s.Err = r.Error
		if s.Err == "" {
			s.Err = "no answer"
		}
	case s.Status < 200 || s.Status > 299:
		s.Err = fmt.Sprintf("status %d: %.300s", s.Status, strings.TrimSpace(string(r.Body)))
	case r.Error != "":
		s.Err = "in the body of the answer: " + r.Error
	case s.Method == http.MethodPost:
		l.judgePost(&s, r)
	case string(r.Body) != right[s.Path]:
		s.Wrong = true
		s.Err = fmt.Sprintf("wrong answer: %.200q", r.Body)
	}
	return s
}

// judgePost wants the new order, with the very item that was sent under this request's ID.
func (l *Load) judgePost(s *Sample, r *vegeta.Result) {
	var made struct {
		ID   int64 `json:"order_id"`
		Item string
	}
	err := json.Unmarshal(r.Body, &made)
	s.Location = r.Headers.Get("Location")
	if err != nil || s.Status != http.StatusCreated || made.Item != s.ID || s.ID == "" ||
		s.Location != fmt.Sprintf("/orders/%d/%d", l.cfg.User, made.ID) {
		s.Wrong = true
		s.Err = fmt.Sprintf("wrong answer: %d %.200q, Location %q", s.Status, r.Body, s.Location)
		return
	}
	s.Item = made.Item
}

// Log is the samples so far. The zero value is empty and ready.
type Log struct {
	mu      sync.Mutex // guards samples
	samples []Sample
}

func (l *Log) add(s Sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.samples = append(l.samples, s)
}

// Samples returns those that have ended, in no order.
func (l *Log) Samples() []Sample {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Sample(nil), l.samples...)
}

// Count those that have ended and of which match is true.
func (l *Log) Count(match func(*Sample) bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for i := range l.samples {
		if match(&l.samples[i]) {
			n++
		}
	}
	return n
}
