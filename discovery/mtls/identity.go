package mtls

import (
	"sync"
	"sync/atomic"
	"time"
)

// Identity is roots, certificate and key as the files have them. Use Open, and
// Close at the end.
type Identity struct {
	cfg  Config
	used atomic.Pointer[material]
	stop chan struct{}
	once sync.Once
	done chan struct{} // closed when the looking has ended

	// Of the one goroutine that looks.
	seen   *files    // changed, at the last look; nil: nothing was
	failed string    // the trouble that was told last; empty: none
	warned time.Time // when it was said that the certificate's time is nearly over
}

// Open reads the files and begins to look after them, in a goroutine that ends
// with Close. An error names the setting or the file that is wrong.
func Open(cfg Config) (*Identity, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	content, err := cfg.read()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	m, err := cfg.material(content, now)
	if err != nil {
		return nil, err
	}
	i := &Identity{cfg: cfg, stop: make(chan struct{}), done: make(chan struct{})}
	i.use(m)
	i.warn(now)
	if cfg.CAFile == "" && cfg.CertFile == "" {
		close(i.done) // nothing to look after
	} else {
		go i.look()
	}
	return i, nil
}

// Close ends the looking. What was made of the identity goes on to work, with the
// files as they were last. Closing again does nothing.
func (i *Identity) Close() {
	i.once.Do(func() { close(i.stop) })
	<-i.done
}

// Info tells of the files in use.
func (i *Identity) Info() Info { return i.used.Load().info }

// HasCertificate reports whether there is a certificate to show, and so a Server.
func (i *Identity) HasCertificate() bool { return i.cfg.CertFile != "" }

func (i *Identity) use(m *material) {
	i.used.Store(m)
	if loaded := i.cfg.Trace.Loaded; loaded != nil {
		loaded(m.info)
	}
}

// settle is how long what has changed must stay the same before it counts.
const settle = time.Second

// look looks after the files until Close.
func (i *Identity) look() {
	defer close(i.done)
	timer := time.NewTimer(i.cfg.Interval)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-i.stop:
			return
		}
		i.check(time.Now())
		if i.seen != nil {
			timer.Reset(min(settle, i.cfg.Interval))
		} else {
			timer.Reset(i.cfg.Interval)
		}
	}
}

// check looks at the files once.
func (i *Identity) check(now time.Time) {
	defer i.warn(now)
	content, err := i.cfg.read()
	if err != nil {
		i.seen = nil
		i.fail(err)
		return
	}
	if content.equal(i.used.Load().files) {
		i.seen = nil
		if i.failed != "" {
			i.failed = ""
			i.cfg.Log.Info("the TLS files are again those in use")
			if kept := i.cfg.Trace.Kept; kept != nil {
				kept()
			}
		}
		return
	}
	if i.seen == nil || !content.equal(*i.seen) {
		i.seen = &content
		return
	}
	i.seen = nil
	m, err := i.cfg.material(content, now)
	if err != nil {
		i.fail(err)
		return
	}
	i.failed, i.warned = "", time.Time{}
	i.use(m)
	i.cfg.Log.Info("the TLS files were replaced", "names", m.info.Names, "not_after", stamp(m.info.NotAfter))
}

// fail tells of files that can't be used, once for each reason.
func (i *Identity) fail(err error) {
	if err.Error() == i.failed {
		return
	}
	i.failed = err.Error()
	i.cfg.Log.Error("the TLS files can't be used; the last good ones stay in use",
		"error", err, "not_after", stamp(i.Info().NotAfter))
	if failed := i.cfg.Trace.Failed; failed != nil {
		failed(err)
	}
}

// warn says once an hour that the certificate in use is over, or has less than a
// fifth of its time left.
func (i *Identity) warn(now time.Time) {
	m := i.used.Load()
	if m.cert == nil || now.Sub(i.warned) < time.Hour {
		return
	}
	left := m.info.NotAfter.Sub(now)
	if left >= m.info.NotAfter.Sub(m.begin)/5 {
		return
	}
	i.warned = now
	i.cfg.Log.Warn("the TLS certificate's time is nearly over, or is over",
		"file", i.cfg.CertFile, "not_after", stamp(m.info.NotAfter), "left", left.Round(time.Second))
}
