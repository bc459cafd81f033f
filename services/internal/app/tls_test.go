package app

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/internal/tlstest"
)

// tlsArgs returns the settings of a service with a certificate of that name.
func tlsArgs(t *testing.T, a *tlstest.Authority, name string) []string {
	t.Helper()
	folder := t.TempDir()
	a.Write(folder, a.Sign(time.Hour, name))
	at := func(file string) string { return filepath.Join(folder, file) }
	return []string{"--tls-cert=" + at("cert.pem"), "--tls-key=" + at("key.pem"), "--tls-ca=" + at("ca.pem"), "--advertise-host=127.0.0.1"}
}

func TestServicesCallEachOtherByTLSAndOnlyNamedCallersMay(t *testing.T) {
	t.Parallel()
	agent, consul, _ := reachable(t)
	ours := tlstest.New(t, "ours")
	user := begin(t, consul, hello, append(tlsArgs(t, ours, "user"), "--tls-callers=order, gateway")...)
	user.eventually("it is registered as speaking TLS", func() bool {
		found, _, err := agent.Client().Health().Service("user", "", false, nil)
		return err == nil && len(found) == 1 && found[0].Service.Meta["rollcall-tls"] == "true"
	})

	calls := func(name string) (int, string) {
		var client http.RoundTripper
		spec := Spec{Name: name, Peers: []string{"user"}}
		built := func(r *Runtime, _ *Parts) { client = r.Transport }
		p := beginBuilt(t, spec, built, consul, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			out, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://user/", nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := client.RoundTrip(out)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body)
		}), tlsArgs(t, ours, name)...)
		p.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: ours.Pool(), ServerName: name}
		code, body, err := p.get(strings.Replace(p.traffic, "http:", "https:", 1) + "/")
		if err != nil {
			t.Error(err)
		}
		if code, _, err := p.get(p.admin + "/readyz"); code != 200 {
			t.Errorf("%s: the admin port, which stays plain: %d, %v", name, code, err)
		}
		p.signals <- syscall.SIGTERM
		p.exit(ExitDrained)
		return code, body
	}
	if code, body := calls("order"); code != 200 || body != "hello" {
		t.Errorf("order calls user: %d %s; want hello", code, body)
	}
	if code, body := calls("stranger"); code != http.StatusBadGateway || !strings.Contains(body, "user") {
		t.Errorf("a stranger calls user: %d %s; want a refusal", code, body)
	}
	user.eventually("the refusal is logged with the caller's name", func() bool {
		return strings.Contains(user.log.String(), `a client calls that is`) && strings.Contains(user.log.String(), "stranger")
	})
	user.signals <- syscall.SIGTERM
	user.exit(ExitDrained)
}

func TestEdgeSpeaksTLSToTheOutsideByACertificateOfItsOwn(t *testing.T) {
	t.Parallel()
	inside, outside := tlstest.New(t, "inside"), tlstest.New(t, "outside")
	args := tlsArgs(t, inside, "gateway")
	folder := t.TempDir()
	outside.Write(folder, outside.Sign(time.Hour, "shop.example"))
	own := &mtls.Config{CertFile: filepath.Join(folder, "cert.pem"), KeyFile: filepath.Join(folder, "key.pem")}
	p := beginBuilt(t, Spec{Name: "gateway", Edge: true}, func(_ *Runtime, parts *Parts) { parts.TLS = own }, nobody(t), hello, args...)
	p.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: outside.Pool(), ServerName: "shop.example"}}
	if code, body, err := p.get(strings.Replace(p.traffic, "http:", "https:", 1) + "/"); code != 200 || body != "hello" {
		t.Errorf("by the outside's certificate: %d %q %v; want hello", code, body, err)
	}
	if _, body, err := p.get(p.admin + "/metrics"); !strings.Contains(body, `rollcall_tls_certificate_expiry_timestamp_seconds{service="gateway",use="outside"}`) ||
		!strings.Contains(body, `rollcall_tls_certificate_expiry_timestamp_seconds{service="gateway",use="mesh"}`) {
		t.Errorf("/metrics lacks the end of the certificates (%v)", err)
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)

	p = beginAs(t, Spec{Name: "gateway", Edge: true}, nobody(t), hello, args...)
	if code, body, err := p.get(p.traffic + "/"); code != 200 || body != "hello" {
		t.Errorf("without one, in plain text: %d %q %v; want hello", code, body, err)
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}

func TestConnectionBeyondTheLimitIsRefusedInTLS(t *testing.T) {
	t.Parallel()
	ours := tlstest.New(t, "ours")
	args := tlsArgs(t, ours, "user")
	p := begin(t, nobody(t), hello, append(args, "--max-connections=1")...)
	addr := strings.TrimPrefix(p.traffic, "http://")
	first, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	p.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ours.Pool(), ServerName: "user"}, ForceAttemptHTTP2: true}
	p.eventually("the next one is answered 503", func() bool {
		code, body, err := p.get("https://" + addr + "/")
		return err == nil && code == http.StatusServiceUnavailable && strings.Contains(body, "which is the limit")
	})
	first.Close()
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}
