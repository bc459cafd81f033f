// Package tlstest makes certificates for tests: an authority, and what it signs.
package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Authority signs certificates. Use New.
type Authority struct {
	// PEM is its own certificate: the roots.
	PEM []byte

	tb    testing.TB
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	count int64
}

// Pair is a certificate and its key, in PEM.
type Pair struct{ Cert, Key []byte }

// New returns an authority whose time is from an hour ago to a day from now.
func New(tb testing.TB, name string) *Authority {
	tb.Helper()
	a := &Authority{tb: tb, key: newKey(tb)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		tb.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	a.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

// Sign returns a certificate, for servers and clients, with the names (those with
// "://" are URIs, and there may be IP addresses), whose time is from an hour ago to so long from now.
func (a *Authority) Sign(life time.Duration, names ...string) Pair {
	a.tb.Helper()
	a.count++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1 + a.count), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(min(life, 0) - time.Hour), NotAfter: time.Now().Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if !strings.Contains(name, "://") {
			template.DNSNames = append(template.DNSNames, name)
			continue
		}
		uri, err := url.Parse(name)
		if err != nil {
			a.tb.Fatal(err)
		}
		template.URIs = append(template.URIs, uri)
	}
	key := newKey(a.tb)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.tb.Fatal(err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}
}

// Certificate returns the pair as crypto/tls wants it.
func (p Pair) Certificate(tb testing.TB) tls.Certificate {
	tb.Helper()
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// Pool returns the roots as crypto/tls wants them.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Write writes the roots and the pair into ca.pem, cert.pem and key.pem of a folder,
// and returns where these are.
func (a *Authority) Write(folder string, p Pair) (caFile, certFile, keyFile string) {
	a.tb.Helper()
	at := func(name string) string { return filepath.Join(folder, name) }
	for name, content := range map[string][]byte{"ca.pem": a.PEM, "cert.pem": p.Cert, "key.pem": p.Key} {
		if err := os.WriteFile(at(name), content, 0o600); err != nil {
			a.tb.Fatal(err)
		}
	}
	return at("ca.pem"), at("cert.pem"), at("key.pem")
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}
