package discovery_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
	"github.com/rollcall-mesh/rollcall/internal/tlstest"
)

// secured is a real Consul that wants a certificate of its callers, and the files of
// one caller.
type secured struct {
	consul *consultest.Server
	server string // folder of its own files
	files  string // folder of the caller's
	cfg    discovery.Consul
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	ca, dir := tlstest.New(t, "a CA of the test"), t.TempDir()
	caFile, certFile, keyFile := ca.Write(dir, ca.Sign(time.Hour, "127.0.0.1"))
	s := &secured{consul: consultest.RealWithTLS(t, consultest.TLS{CAFile: caFile, CertFile: certFile, KeyFile: keyFile}), server: dir, files: t.TempDir()}
	s.cfg = discovery.Consul{Address: "https://" + s.consul.Addr()}
	s.cfg.CAFile, s.cfg.CertFile, s.cfg.KeyFile = ca.Write(s.files, ca.Sign(time.Hour, "client"))
	return s
}

// replaceCA gives Consul another CA, whose certificates alone it takes from now on, and
// the caller files of it.
func (s *secured) replaceCA(t *testing.T) {
	t.Helper()
	ca := tlstest.New(t, "a CA of the test")
	s.consul.Kill()
	ca.Write(s.server, ca.Sign(time.Hour, "127.0.0.1"))
	ca.Write(s.files, ca.Sign(time.Hour, "client"))
	s.consul.Restart()
}

func TestCertificatesForConsulAreReplacedWhileTheMeshRuns(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	quiet := slog.New(slog.DiscardHandler)
	mesh, caller := open(t, discovery.Config{Consul: s.cfg, Log: quiet}), open(t, discovery.Config{Consul: s.cfg, Log: quiet})
	orders := func(body string) int {
		return serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }))
	}
	if _, err := mesh.Register(registration.Config{Service: "order", ID: "one", Port: orders("one")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer of the first", func() bool {
		body, err := get(t, mesh, "http://order/")
		return err == nil && body == "one"
	})

	s.replaceCA(t)
	if _, err := mesh.Register(registration.Config{Service: "order", ID: "two", Port: orders("two")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer of one that was registered with the new certificate", func() bool {
		body, err := get(t, mesh, "http://order/")
		return err == nil && body == "two"
	})

	// The last good one is used, by connections that nobody had needed before as well.
	if err := os.WriteFile(filepath.Join(s.files, "cert.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := caller.Register(registration.Config{Service: "order", ID: "three", Port: orders("three")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer of one that was registered while the file was broken", func() bool {
		body, err := get(t, mesh, "http://order/")
		return err == nil && body == "three"
	})
}

func TestConsulThatWantsACertificateIsToldOfWithWhatToSet(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	stranger := tlstest.New(t, "a CA of the test")
	for name, c := range map[string]struct {
		spoil func(*discovery.Consul)
		want  string
	}{
		"no certificate": {func(c *discovery.Consul) { c.CertFile, c.KeyFile = "", "" }, "Config.Consul.CertFile and KeyFile"},
		"one of another CA": {func(c *discovery.Consul) {
			_, c.CertFile, c.KeyFile = stranger.Write(t.TempDir(), stranger.Sign(time.Hour, "client"))
		}, "Config.Consul.CertFile and KeyFile"},
		"Consul's CA not given": {func(c *discovery.Consul) { c.CAFile = "" }, "Config.Consul.CAFile"},
		"another name":          {func(c *discovery.Consul) { c.ServerName = "consul.example.com" }, "ServerName"},
		"http":                  {func(c *discovery.Consul) { c.Address = "http://" + s.consul.Addr() }, "use https in place of http"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := s.cfg
			c.spoil(&cfg)
			var log logtest.Buffer
			mesh := open(t, discovery.Config{Consul: cfg, Log: slog.New(slog.NewTextHandler(&log, nil)), InitialFetchTimeout: 1})
			eventually(t, "a line that says what to do", func() bool {
				if _, err := get(t, mesh, "http://order/"); err == nil {
					t.Fatal("an answer without a Consul")
				} else if strings.Contains(err.Error(), c.want) {
					return true
				}
				return strings.Contains(log.String(), c.want)
			})
		})
	}
}
