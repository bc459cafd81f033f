package health

import (
	"encoding/json"
	"net/http"
	"time"
)

// The words of a page's status field.
const (
	statusLive     = "live"
	statusReady    = "ready"
	statusNotReady = "not ready"
	statusDraining = "draining"
)

type page struct {
	Status       string           `json:"status"`
	Why          string           `json:"why,omitempty"`
	Dependencies []pageDependency `json:"dependencies,omitempty"`
}

type pageDependency struct {
	Name     string       `json:"name"`
	OK       bool         `json:"ok"`
	Required bool         `json:"required"`
	Why      string       `json:"why,omitempty"`
	Checked  *pageChecked `json:"checked,omitempty"` // with ?verbose
}

type pageChecked struct {
	At     time.Time `json:"at"`
	TookMS float64   `json:"took_ms"`
}

// LiveHandler answers 200 for as long as the process can answer at all,
// draining included.
func (r *Registry) LiveHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, page{Status: statusLive})
	})
}

// ReadyHandler answers 200 if the process is ready, else 503, with a JSON
// object that has each dependency and why. With the query parameter verbose it
// says besides when each was checked and how long that took.
func (r *Registry) ReadyHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		report := r.Report(req.Context())
		p := page{Status: statusReady}
		code := http.StatusOK
		if err := report.Err(); err != nil {
			p.Status, p.Why = statusNotReady, err.Error()
			code = http.StatusServiceUnavailable
		}
		if report.Draining {
			p.Status = statusDraining
		}
		verbose := req.URL.Query().Has("verbose")
		for _, d := range report.Dependencies {
			shown := pageDependency{Name: d.Name, OK: d.Err == nil, Required: d.Role == Required}
			if d.Err != nil {
				shown.Why = d.Err.Error()
			}
			if verbose {
				shown.Checked = &pageChecked{At: d.Checked, TookMS: float64(d.Took) / float64(time.Millisecond)}
			}
			p.Dependencies = append(p.Dependencies, shown)
		}
		write(w, code, p)
	})
}

func write(w http.ResponseWriter, code int, p page) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	_ = out.Encode(p) // a prober that has gone needs no answer
}
