package mtls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxFile is the largest file that is read: the system's whole bundle of roots has
// a quarter of it.
const maxFile = 1 << 20

// files are the contents of the files, empty where there is none.
type files struct{ ca, cert, key []byte }

func (f files) equal(g files) bool {
	return bytes.Equal(f.ca, g.ca) && bytes.Equal(f.cert, g.cert) && bytes.Equal(f.key, g.key)
}

// material is what files are made into. It never changes.
type material struct {
	files files
	roots *x509.CertPool   // nil: the system's
	cert  *tls.Certificate // nil: none
	info  Info
	begin time.Time // of the certificate's time
}

// read reads what is configured.
func (c Config) read() (f files, err error) {
	for _, file := range []struct {
		field, path string
		to          *[]byte
	}{{"CAFile", c.CAFile, &f.ca}, {"CertFile", c.CertFile, &f.cert}, {"KeyFile", c.KeyFile, &f.key}} {
		if file.path == "" {
			continue
		}
		if *file.to, err = readFile(file.path); err != nil {
			return files{}, fmt.Errorf("mtls: %s: %w", file.field, err)
		}
	}
	return f, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes; want a PEM file", path, maxFile)
	}
	return content, nil
}

// material makes the files into what is used. The certificate's time must be now.
func (c Config) material(f files, now time.Time) (*material, error) {
	m := &material{files: f}
	if c.CAFile != "" {
		if err := m.trust(f.ca); err != nil {
			return nil, fmt.Errorf("mtls: CAFile %s %w", c.CAFile, err)
		}
	}
	if c.CertFile == "" {
		return m, nil
	}
	cert, err := tls.X509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("mtls: CertFile %s with KeyFile %s: %w", c.CertFile, c.KeyFile, err)
	}
	leaf := cert.Leaf
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, fmt.Errorf("mtls: CertFile %s holds a certificate for %s to %s; it is %s",
			c.CertFile, stamp(leaf.NotBefore), stamp(leaf.NotAfter), stamp(now))
	}
	m.cert, m.begin = &cert, leaf.NotBefore
	m.info.Names, m.info.NotAfter = names(leaf), leaf.NotAfter
	return m, nil
}

// trust takes the certificates of a PEM file for roots.
func (m *material) trust(content []byte) error {
	m.roots = x509.NewCertPool()
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN")) {
				return errors.New("ends in the midst of a PEM block; want whole certificates")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("has a block %q; want certificates", block.Type)
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("has a certificate that can't be read: %w", err)
		}
		m.roots.AddCert(root)
		if first := m.info.RootsNotAfter; first.IsZero() || root.NotAfter.Before(first) {
			m.info.RootsNotAfter = root.NotAfter
		}
	}
	if m.info.RootsNotAfter.IsZero() {
		return errors.New("has no certificate; want the roots")
	}
	return nil
}

// names returns by what a certificate may be known.
func names(c *x509.Certificate) []string {
	all := make([]string, 0, len(c.DNSNames)+len(c.URIs))
	all = append(all, c.DNSNames...)
	for _, uri := range c.URIs {
		all = append(all, uri.String())
	}
	return all
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
