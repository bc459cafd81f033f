package mtls

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// AnyCaller in Config.Callers stands for each client with a certificate from the
// roots.
const AnyCaller = "*"

// ServicePart of Config.ServerName stands for the service's name.
const ServicePart = "{service}"

// Config says where an identity is. Its zero value is a client's that believes
// the system's roots and shows no certificate.
type Config struct {
	// CAFile holds the roots, in PEM: whose certificates are believed, of servers
	// and of clients. Empty means the system's, and then Callers must be empty.
	CAFile string
	// CertFile holds the certificate, followed by those in between, and KeyFile its
	// key, in PEM: what a server shows, and a client where it is asked to. Both or
	// neither; without them there is no Server.
	CertFile, KeyFile string
	// ServerName is the name that the certificate of a called service must have;
	// ServicePart in it stands for the service's own, as in
	// "{service}.service.consul". Empty means the service's name. A name without
	// that part lets each holder of such a certificate pass for every service.
	ServerName string
	// Callers are the names of the clients that may call a Server: DNS names or
	// URIs (SPIFFE IDs) of which their certificate must have one, AnyCaller for each
	// certificate from the roots. Empty means that no certificate is asked for, and
	// anybody may call.
	Callers []string
	// Interval between two looks at the files. 0 means 10s. A look reads them: three
	// small files, a quarter of a millisecond on a busy machine. Shorter has a new
	// certificate in use sooner.
	Interval time.Duration
	// Trace is told of what happens. nil means that nothing listens.
	Trace *Trace
	// Log gets files that were replaced or can't be used, and a certificate whose
	// time will soon be over. nil means slog.Default().
	Log *slog.Logger
}

// Trace has a function for each thing that happens; nil ones are skipped. They are
// called by one goroutine at a time, and must be quick.
type Trace struct {
	// Loaded is called by Open, and when files were replaced.
	Loaded func(Info)
	// Failed is called when files can't be used, once for each reason. The last
	// good ones stay in use until Loaded or Kept.
	Failed func(error)
	// Kept is called when files that could not be used are again those in use.
	Kept func()
}

// Info tells of the files in use.
type Info struct {
	// Names are those of the certificate: DNS names, URIs. nil without one.
	Names []string
	// NotAfter is when its time is over; zero without one.
	NotAfter time.Time
	// RootsNotAfter is when the first of the roots is over; zero for the system's.
	RootsNotAfter time.Time
}

const (
	defaultInterval = 10 * time.Second
	minInterval     = 100 * time.Millisecond
)

func (c Config) filled() (Config, error) {
	var wrong []error
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("mtls: "+format, args...)) }
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("CertFile is %q and KeyFile is %q; want both or neither", c.CertFile, c.KeyFile)
	}
	if len(c.Callers) > 0 && c.CAFile == "" {
		bad("Callers is %q without CAFile; want the roots that their certificates come from", c.Callers)
	}
	if slices.Contains(c.Callers, "") {
		bad("Callers has an empty name; want names of certificates, or %q", AnyCaller)
	}
	if strings.ContainsAny(strings.ReplaceAll(c.ServerName, ServicePart, ""), "{}*/: ") {
		bad("ServerName is %q; want a name, in which %s stands for the service's", c.ServerName, ServicePart)
	}
	switch {
	case c.Interval == 0:
		c.Interval = defaultInterval
	case c.Interval < minInterval:
		bad("Interval is %v; want at least %v, or 0 for %v", c.Interval, minInterval, defaultInterval)
	}
	if c.Trace == nil {
		c.Trace = new(Trace)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Callers = slices.Clone(c.Callers)
	return c, errors.Join(wrong...)
}
