package meshview

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

const (
	tryLimit = 10 * time.Second
	// maxTried is how much of an answer's body is read, in bytes, to see that it comes.
	maxTried = 1 << 20
	// maxForm bounds what is posted.
	maxForm = 8 << 10
)

// tried is what came of a request that was sent to show a choice.
type tried struct {
	Service string     `json:"service"`
	Path    string     `json:"path"`
	Status  int        `json:"status"` // 0: there was no answer
	Error   string     `json:"error,omitempty"`
	Bytes   int64      `json:"bytes"` // of the body, which is thrown away
	Took    float64    `json:"took_seconds"`
	Tries   []tryTaken `json:"tries"` // in the order of their beginning
}

// tryTaken is one of its tries.
type tryTaken struct {
	Instance string  `json:"instance"`
	Addr     string  `json:"addr"`
	Outcome  string  `json:"outcome"`
	Status   int     `json:"status,omitempty"`
	Error    string  `json:"error,omitempty"`
	Took     float64 `json:"took_seconds"`
	Used     bool    `json:"used"` // its answer is the one
}

// sameOrigin refuses what a browser sends for the page of another site.
func sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.New(http.StatusForbidden, "the request comes from another site's page"))
	}))
	return protection.Handler(next)
}

// serveTry sends a GET as a client of this process would, and tells where it went: for
// the path q, or for the path "path" of the service q.
func (v *View) serveTry(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		problem.Write(w, r, problem.New(http.StatusBadRequest, "the form can't be read: %v", err))
		return
	}
	q, refused := v.understand(r.PostForm.Get("q"), r.PostForm.Get("host"))
	if refused != nil {
		problem.Write(w, r, refused)
		return
	}
	target := q.path
	if target == "" {
		target = r.PostForm.Get("path")
	}
	if target == "" || target[0] != '/' || len(target) > maxQuestion {
		problem.Write(w, r, problem.New(http.StatusBadRequest, "path is %q; want a path of the service %s, such as /orders/1", bounded(target), q.service))
		return
	}
	u, err := url.Parse("http://" + q.service + target)
	if err != nil || u.Host != q.service {
		problem.Write(w, r, problem.New(http.StatusBadRequest, "path is %q; want one that a URL can have", bounded(target)))
		return
	}
	v.answer(w, v.try(r.Context(), u))
}

// try sends the request.
func (v *View) try(ctx context.Context, u *url.URL) tried {
	t := tried{Service: u.Host, Path: u.EscapedPath(), Tries: []tryTaken{}}
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	var report httpmesh.Report
	began := time.Now()
	req, err := http.NewRequestWithContext(httpmesh.WithReport(ctx, &report), http.MethodGet, u.String(), nil)
	if err != nil {
		t.Error = bounded(err.Error())
		return t
	}
	res, err := v.cfg.Try.RoundTrip(req)
	if err == nil {
		t.Status = res.StatusCode
		t.Bytes, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxTried))
		res.Body.Close()
	}
	if err != nil {
		t.Error = bounded(err.Error())
	}
	t.Took = time.Since(began).Seconds()
	for _, one := range report.Tries {
		taken := tryTaken{
			Instance: one.Instance.ID, Addr: one.Instance.Addr(), Outcome: one.Outcome.String(), Status: one.Status,
			Took: one.Latency.Seconds(), Used: one.Used,
		}
		if one.Err != nil {
			taken.Error = bounded(one.Err.Error())
		}
		t.Tries = append(t.Tries, taken)
	}
	return t
}
