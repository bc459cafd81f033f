//go:build faults

package fault

import (
	"maps"
	"net/http"
	"sync"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

const (
	// requestID is package web's RequestIDHeader, which imports this package.
	requestID = "X-Request-Id"
	// maxCounted is how many requests are counted under one setting.
	maxCounted = 1 << 17
)

// executions counts how many times each request was begun. A nil one counts
// nothing.
type executions struct {
	mu   sync.Mutex     // guards what follows
	of   map[string]int // by the request's ID
	over bool           // there were more requests than are counted
}

func (e *executions) note(id string) {
	if e == nil || id == "" {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.of[id]; !known && len(e.of) == maxCounted {
		e.over = true
		return
	}
	e.of[id]++
}

func (e *executions) counts() (of map[string]int, over bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.of), e.over
}

func showExecutions(w http.ResponseWriter, r *http.Request) {
	s := current.Load()
	switch {
	case r.Method != http.MethodGet:
		p := problem.New(http.StatusMethodNotAllowed, "/faults/executions does not take %s; it takes GET", r.Method)
		p.Header = http.Header{"Allow": {"GET"}}
		problem.Write(w, r, p)
	case s == nil || s.begun == nil:
		problem.Write(w, r, problem.New(http.StatusConflict, "executions are not counted; PUT /faults with count sets that"))
	default:
		of, over := s.begun.counts()
		if over {
			problem.Write(w, r, problem.New(http.StatusInsufficientStorage, "there were more than %d requests: the counts are not all", maxCounted))
			return
		}
		answer(w, of)
	}
}
