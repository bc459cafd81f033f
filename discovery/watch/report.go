package watch

import (
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"
)

// standing is what is known of the truth of the set, and of the trouble with
// Consul.
type standing struct {
	*follower
	cfg    *Config
	proven time.Time // when the set was last true for sure
	lost   time.Time // when the trouble began; zero: there is none
	stale  bool      // the set is older than StaleFor, and readers were told
}

func (s *standing) troubled() bool { return !s.lost.IsZero() }

// prove notes that the set was true when Consul was asked, less the time for
// which the server that answered had not heard from its leader. An error says
// why the answer proves nothing; that of a streamed one is silent.
func (s *standing) prove(a answer) (ok bool, err error) {
	switch {
	case a.meta.QueryBackend == api.QueryBackendStreaming:
		return false, nil // says nothing about its age
	case !a.meta.KnownLeader && a.meta.LastIndex == 0:
		return false, errNoIndex // it can't be read, and consul/api reads no header after it
	case !a.meta.KnownLeader:
		return false, errNoLeader
	case a.meta.LastContact < 0:
		return false, errNoContact
	}
	if at := a.sent.Add(-a.meta.LastContact); at.After(s.proven) {
		s.proven = at
	}
	s.feed.Confirm(s.proven)
	if s.cfg.StaleFor > 0 {
		s.stale = s.stale && !time.Now().Before(s.staleAt())
	}
	return true, nil
}

// recovered notes that the trouble is over, and reports whether there was any.
func (s *standing) recovered(instances int) bool {
	if !s.troubled() {
		return false
	}
	s.cfg.Log.Info("service found again", "service", s.service, "after", time.Since(s.lost), "instances", instances)
	s.lost = time.Time{}
	s.cfg.Trace.recovered(s.service)
	return true
}

// fail notes trouble; only its beginning is logged. known tells whether there is
// a set.
func (s *standing) fail(err error, known bool, instances int) {
	s.feed.Fail(err)
	s.cfg.Trace.failed(s.service, err)
	if s.troubled() {
		return
	}
	s.lost = time.Now()
	if !known {
		// Latest tells each reader, with the trouble.
		s.cfg.Log.Debug("no answer about the service so far", "service", s.service, "error", err)
		return
	}
	s.cfg.Log.Warn("service lost: its last instances stay in use", "service", s.service, "instances", instances, "error", err)
}

// tellAt returns when the readers are to be told that the set is stale; zero if
// there is no such time.
func (s *standing) tellAt(known bool) time.Time {
	if s.cfg.StaleFor == 0 || s.stale || !known {
		return time.Time{}
	}
	return s.staleAt()
}

// tellStale notes that the set has just become older than StaleFor. Its readers
// must be made to ask again before, and so learn of it.
func (s *standing) tellStale(instances int) {
	s.stale = true
	s.cfg.Trace.failed(s.service, fmt.Errorf("%w: StaleFor is %s", ErrStale, s.cfg.StaleFor))
	s.cfg.Log.Warn("service stale: its last instances are withheld", "service", s.service, "instances", instances, "staleFor", s.cfg.StaleFor)
}

func (s *standing) staleAt() time.Time {
	since := s.proven
	if since.IsZero() {
		since = s.began
	}
	return since.Add(s.cfg.StaleFor)
}
