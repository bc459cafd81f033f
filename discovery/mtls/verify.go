package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// Client returns how the service is called: its certificate must come from the
// roots and have the service's name (see Config.ServerName), and it is shown ours if
// it asks. The config may be kept for as long as one likes.
func (i *Identity) Client(service string) *tls.Config {
	name := service
	if i.cfg.ServerName != "" {
		name = strings.ReplaceAll(i.cfg.ServerName, ServicePart, service)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: name,
		// Not skipped, but done below: RootCAs would be those of now for ever.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return i.verify(cs, x509.ExtKeyUsageServerAuth, name)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert := i.used.Load().cert; cert != nil {
				return cert, nil
			}
			return new(tls.Certificate), nil // none
		},
	}
}

// Server returns how a listener serves: it shows the certificate, and lets those
// call that Config.Callers names. Without a certificate it is an error. The config
// may be kept for as long as one likes; its NextProtos are the caller's business.
func (i *Identity) Server() (*tls.Config, error) {
	if !i.HasCertificate() {
		return nil, errors.New("mtls: a server needs a certificate; want CertFile and KeyFile")
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return i.used.Load().cert, nil
		},
	}
	if len(i.cfg.Callers) > 0 {
		cfg.ClientAuth = tls.RequireAnyClientCert
		// Called for resumed sessions too, which VerifyPeerCertificate is not.
		cfg.VerifyConnection = i.admit
	}
	return cfg, nil
}

// admit lets a client call whose certificate comes from the roots and has one of
// the names.
func (i *Identity) admit(cs tls.ConnectionState) error {
	if err := i.verify(cs, x509.ExtKeyUsageClientAuth, ""); err != nil {
		return err
	}
	has := names(cs.PeerCertificates[0])
	for _, caller := range i.cfg.Callers {
		if caller == AnyCaller || slices.ContainsFunc(has, func(n string) bool { return strings.EqualFold(n, caller) }) {
			return nil
		}
	}
	return fmt.Errorf("mtls: a client calls that is %s; want one of %s", list(has), list(i.cfg.Callers))
}

// verify checks the peer's certificate by the roots of this moment; name is empty
// where any will do.
func (i *Identity) verify(cs tls.ConnectionState, use x509.ExtKeyUsage, name string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("mtls: the peer shows no certificate")
	}
	leaf := cs.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         i.used.Load().roots,
		Intermediates: between,
		DNSName:       name,
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{use},
	})
	if err == nil {
		return nil
	}
	return &CertificateError{Want: name, Names: names(leaf), Issuer: leaf.Issuer.String(), NotAfter: leaf.NotAfter, Err: err}
}

// CertificateError says why a peer's certificate is not believed.
type CertificateError struct {
	// Want is the name that it should have; empty if any would do.
	Want string
	// Names are those that it has, Issuer signed it, NotAfter is when its time is
	// over: as it says itself.
	Names    []string
	Issuer   string
	NotAfter time.Time
	// Err is what crypto/x509 says; never nil.
	Err error
}

func (e *CertificateError) Error() string {
	want := ""
	if e.Want != "" {
		want = fmt.Sprintf(" for %q", e.Want)
	}
	// What the peer says of itself is of any length.
	return fmt.Sprintf("mtls: the certificate is not believed%s: %s (it is for %s, until %s, signed by %s)",
		want, clip.To(300, e.Err.Error()), list(e.Names), stamp(e.NotAfter), clip.To(80, e.Issuer))
}

// Unwrap returns crypto/x509's error.
func (e *CertificateError) Unwrap() error { return e.Err }

// list shows names as an error does.
func list(names []string) string { return clip.To(200, fmt.Sprintf("%q", names)) }
