package app

import (
	"crypto/tls"
	"net/http"
	"strings"

	"google.golang.org/grpc/credentials"

	"github.com/rollcall-mesh/rollcall/discovery/mtls"
)

// identity returns what the settings say of TLS.
func (s *Settings) identity() mtls.Config {
	return mtls.Config{
		CAFile: s.TLSCA, CertFile: s.TLSCert, KeyFile: s.TLSKey,
		ServerName: s.TLSServerName, Callers: Names(s.TLSCallers),
	}
}

// Names returns the members of a setting that is a list, with commas between.
func Names(list string) (all []string) {
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			all = append(all, name)
		}
	}
	return all
}

// overTLS sends to services by https what is meant for http.
type overTLS struct{ next http.RoundTripper }

func (t overTLS) RoundTrip(r *http.Request) (*http.Response, error) {
	out, url := *r, *r.URL
	url.Scheme = "https"
	out.URL = &url
	resp, err := t.next.RoundTrip(&out)
	if err != nil {
		return nil, err
	}
	resp.Request = r
	return resp, nil
}

// transport returns what sends to other services.
func (s *service) transport() http.RoundTripper {
	if s.settings.TLSCA == "" {
		return s.mesh.RoundTripper()
	}
	return overTLS{s.mesh.RoundTripper()}
}

// Credentials are Transport for a gRPC client of a service; nil for plain text.
func (r *Runtime) Credentials(service string) credentials.TransportCredentials {
	if _, ok := r.Transport.(overTLS); !ok {
		return nil
	}
	return credentials.NewTLS(r.Mesh.TLS().Client(service))
}

// serveTLS returns how the traffic ports serve; nil for plain text.
func (s *service) serveTLS(parts Parts) (*tls.Config, error) {
	if parts.TLS != nil {
		cfg := *parts.TLS
		cfg.Trace, cfg.Log = s.metrics.TLS("outside"), s.log
		outside, err := mtls.Open(cfg)
		if err != nil {
			return nil, &settingsError{err}
		}
		s.runtime.OnClose(func() error {
			outside.Close()
			return nil
		})
		serving, err := outside.Server()
		if err != nil {
			return nil, &settingsError{err}
		}
		return serving, nil
	}
	if s.spec.Edge || s.settings.TLSCert == "" {
		return nil, nil //nolint:nilnil // plain text
	}
	return s.mesh.TLS().Server()
}
