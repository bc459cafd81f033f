package mtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
	"github.com/rollcall-mesh/rollcall/internal/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day = 24 * time.Hour

// told is an identity, and what it has told.
type told struct {
	*mtls.Identity
	folder string
	log    logtest.Buffer
	loaded []mtls.Info
	failed []string
	kept   int
}

// open opens what is in the folder.
func open(t *testing.T, folder string, change ...func(*mtls.Config)) *told {
	t.Helper()
	i := &told{folder: folder}
	cfg := mtls.Config{
		CAFile: filepath.Join(folder, "ca.pem"), CertFile: filepath.Join(folder, "cert.pem"), KeyFile: filepath.Join(folder, "key.pem"),
		Log: slog.New(slog.NewTextHandler(&i.log, nil)),
		Trace: &mtls.Trace{
			Loaded: func(info mtls.Info) { i.loaded = append(i.loaded, info) },
			Failed: func(err error) { i.failed = append(i.failed, err.Error()) },
			Kept:   func() { i.kept++ },
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if i.Identity, err = mtls.Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// signed returns a folder with the authority's roots and a certificate of the names.
func signed(t *testing.T, a *tlstest.Authority, names ...string) string {
	t.Helper()
	folder := t.TempDir()
	a.Write(folder, a.Sign(day, names...))
	return folder
}

// meet has a client and a server shake hands, and returns what each says, and the
// names that the server has shown.
func meet(t *testing.T, client, server *tls.Config) (shown []string, clientErr, serverErr error) {
	t.Helper()
	// Not net.Pipe: without a buffer between them both may write, and wait for ever.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		there, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer there.Close()
		s := tls.Server(there, server)
		if err = s.Handshake(); err == nil {
			_, err = io.WriteString(s, "x")
		}
		done <- err
	}()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	c := tls.Client(here, client)
	_, clientErr = io.ReadFull(c, make([]byte, 1)) // TLS 1.3: the server has the last word
	here.Close()
	if peers := c.ConnectionState().PeerCertificates; len(peers) > 0 {
		shown = peers[0].DNSNames
	}
	return shown, clientErr, <-done
}

func server(t *testing.T, i *told) *tls.Config {
	t.Helper()
	cfg, err := i.Server()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestServiceOfThatNameAndOfOurRootsIsBelievedAndNoOther(t *testing.T) {
	t.Parallel()
	ours, theirs := tlstest.New(t, "ours"), tlstest.New(t, "theirs")
	client := open(t, signed(t, ours, "gateway"))
	order, user, stranger := open(t, signed(t, ours, "order", "localhost")), open(t, signed(t, ours, "user")), open(t, signed(t, theirs, "order"))

	if _, err, _ := meet(t, client.Client("order"), server(t, order)); err != nil {
		t.Errorf("order was refused: %v", err)
	}
	_, err, _ := meet(t, client.Client("order"), server(t, user))
	if e, ok := errors.AsType[*mtls.CertificateError](err); !ok || e.Want != "order" || !slices.Equal(e.Names, []string{"user"}) || e.NotAfter.IsZero() {
		t.Errorf("another service's certificate: %v", err)
	}
	if _, ok := errors.AsType[x509.HostnameError](err); !ok {
		t.Errorf("got %v; want one that wraps x509.HostnameError", err)
	}
	for _, part := range []string{`"order"`, `["user"]`, "until 20", "CN=ours"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %s", err, part)
		}
	}
	_, err, _ = meet(t, client.Client("order"), server(t, stranger))
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("another authority's certificate: %v", err)
	}
}

func TestVerifiedNameIsMadeByThePattern(t *testing.T) {
	t.Parallel()
	ours := tlstest.New(t, "ours")
	order := open(t, signed(t, ours, "order.service.consul"))
	for pattern, believed := range map[string]bool{"": false, "{service}.service.consul": true, "order.service.consul": true, "{service}.mesh": false} {
		client := open(t, signed(t, ours, "gateway"), func(c *mtls.Config) { c.ServerName = pattern })
		if _, err, _ := meet(t, client.Client("order"), server(t, order)); (err == nil) != believed {
			t.Errorf("ServerName %q: %v; want believed: %v", pattern, err, believed)
		}
	}
}

func TestOnlyNamedCallersMayCall(t *testing.T) {
	t.Parallel()
	ours, theirs := tlstest.New(t, "ours"), tlstest.New(t, "theirs")
	gateway, spiffe := open(t, signed(t, ours, "gateway")), open(t, signed(t, ours, "spiffe://mesh/gateway"))
	stranger := open(t, signed(t, theirs, "gateway"), func(c *mtls.Config) { c.CAFile = filepath.Join(signed(t, ours, "x"), "ca.pem") })
	nobody := open(t, gateway.folder, func(c *mtls.Config) { c.CertFile, c.KeyFile = "", "" })
	for _, c := range []struct {
		callers []string
		client  *told
		may     bool
		says    string
	}{
		{nil, nobody, true, ""},
		{nil, gateway, true, ""},
		{[]string{"order", "Gateway"}, gateway, true, ""},
		{[]string{"order"}, gateway, false, `a client calls that is ["gateway"]; want one of ["order"]`},
		{[]string{"spiffe://mesh/gateway"}, spiffe, true, ""},
		{[]string{"spiffe://mesh/order"}, spiffe, false, `spiffe://mesh/gateway`},
		{[]string{mtls.AnyCaller}, spiffe, true, ""},
		{[]string{mtls.AnyCaller}, nobody, false, "certificate"},
		{[]string{mtls.AnyCaller}, stranger, false, "signed by CN=theirs"},
	} {
		order := open(t, signed(t, ours, "order"), func(cfg *mtls.Config) { cfg.Callers = c.callers })
		_, clientErr, err := meet(t, c.client.Client("order"), server(t, order))
		if (err == nil) != c.may || (clientErr == nil) != c.may {
			t.Errorf("callers %q, client %q: the server says %v, the client %v; want it to call: %v", c.callers, c.client.Info().Names, err, clientErr, c.may)
		}
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q lacks %s", err, c.says)
		}
	}
}

func TestFilesAreReplacedInPlaceByRenameAndByALinkThatIsSwitched(t *testing.T) {
	replace := map[string]func(t *testing.T, i *told, a *tlstest.Authority, p tlstest.Pair){
		"in place": func(_ *testing.T, i *told, a *tlstest.Authority, p tlstest.Pair) { a.Write(i.folder, p) },
		"by rename": func(t *testing.T, i *told, a *tlstest.Authority, p tlstest.Pair) {
			next := t.TempDir()
			a.Write(next, p)
			for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
				if err := os.Rename(filepath.Join(next, name), filepath.Join(i.folder, name)); err != nil {
					t.Fatal(err)
				}
			}
		},
		"by a link": func(t *testing.T, i *told, a *tlstest.Authority, p tlstest.Pair) {
			next := t.TempDir()
			a.Write(next, p)
			link(t, next, i.folder)
		},
	}
	for name, replaced := range replace {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ours, next := tlstest.New(t, "ours"), tlstest.New(t, "next")
				folder := filepath.Join(t.TempDir(), "tls")
				link(t, signed(t, ours, "order"), folder)
				order := open(t, folder)
				serving, calling := server(t, order), order.Client("order")
				if shown, err, _ := meet(t, calling, serving); err != nil || !slices.Equal(shown, []string{"order"}) {
					t.Fatalf("before: %q, %v", shown, err)
				}
				replaced(t, order, next, next.Sign(2*day, "order", "new"))
				time.Sleep(12 * time.Second)
				if shown, err, _ := meet(t, calling, serving); err != nil || !slices.Equal(shown, []string{"order", "new"}) {
					t.Errorf("12 s later: %q, %v; want the new certificate, by the new roots", shown, err)
				}
				synctest.Wait()
				if len(order.loaded) != 2 || len(order.failed) != 0 || !strings.Contains(order.log.String(), "were replaced") {
					t.Errorf("told of %d loads and of %q, logged\n%s", len(order.loaded), order.failed, order.log.String())
				}
			})
		})
	}
}

// link makes a symbolic link to a folder, in place of the one that is there.
func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at+".new", at); err != nil {
		t.Fatal(err)
	}
}

func TestFilesThatCanNotBeUsedKeepTheLastGoodOnesLoudly(t *testing.T) {
	ours := tlstest.New(t, "ours")
	other := ours.Sign(day, "order")
	for _, c := range []struct {
		name, file string
		content    []byte // nil: the file goes
		says       string
	}{
		{"certificate of another key", "cert.pem", other.Cert, "private key does not match"},
		{"half a certificate", "cert.pem", other.Cert[:len(other.Cert)/2], "failed to find any PEM data"},
		{"empty key", "key.pem", []byte{}, "failed to find any PEM data"},
		{"no file", "cert.pem", nil, "no such file"},
		{"no roots", "ca.pem", []byte("none\n"), "has no certificate"},
		{"key among the roots", "ca.pem", other.Key, `has a block "PRIVATE KEY"`},
		{"roots and a half", "ca.pem", append(slices.Clone(ours.PEM), ours.PEM[:100]...), "in the midst of a PEM block"},
		{"too much", "ca.pem", make([]byte, 2<<20), "more than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ours := tlstest.New(t, "ours")
				order := open(t, signed(t, ours, "order"))
				path := filepath.Join(order.folder, c.file)
				before, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if c.content == nil {
					err = os.Remove(path)
				} else {
					err = os.WriteFile(path, c.content, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if _, err, _ := meet(t, order.Client("order"), server(t, order)); err != nil {
					t.Errorf("the last good ones are not in use: %v", err)
				}
				synctest.Wait()
				if len(order.loaded) != 1 || len(order.failed) != 1 || !strings.Contains(order.failed[0], c.says) || !strings.Contains(order.failed[0], c.file) {
					t.Errorf("told of %d loads and of %q; want one failure that has %q and the file", len(order.loaded), order.failed, c.says)
				}
				if n := strings.Count(order.log.String(), "level=ERROR"); n != 1 {
					t.Errorf("logged %d errors; want 1\n%s", n, order.log.String())
				}
				if err := os.WriteFile(path, before, 0o600); err != nil {
					t.Fatal(err)
				}
				time.Sleep(12 * time.Second)
				synctest.Wait()
				if order.kept != 1 {
					t.Errorf("told %d times that the files are those in use again; want once", order.kept)
				}
			})
		})
	}
}

func TestCertificateWhoseTimeIsNotNowDoesNotReplaceAGoodOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours := tlstest.New(t, "ours")
		order := open(t, signed(t, ours, "order"))
		ours.Write(order.folder, ours.Sign(-time.Minute, "order"))
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if len(order.failed) != 1 || !strings.Contains(order.failed[0], "holds a certificate for") {
			t.Errorf("told of %q; want that the time is over", order.failed)
		}
		if _, err, _ := meet(t, order.Client("order"), server(t, order)); err != nil {
			t.Error(err)
		}
	})
}

func TestFileThatIsBeingWrittenDoesNotCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours, next := tlstest.New(t, "ours"), tlstest.New(t, "next")
		order := open(t, signed(t, ours, "order"))
		// Both roots are to be in the file. What is there so far is whole by itself,
		// and would have the certificates of the first believed no more.
		roots := filepath.Join(order.folder, "ca.pem")
		time.Sleep(10*time.Second - time.Millisecond)
		if err := os.WriteFile(roots, next.PEM, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		if err := os.WriteFile(roots, append(slices.Clone(next.PEM), ours.PEM...), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			if _, err, _ := meet(t, order.Client("order"), server(t, order)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if len(order.loaded) != 2 || len(order.failed) != 0 {
			t.Errorf("told of %d loads and of %q; want 2 and none", len(order.loaded), order.failed)
		}
	})
}

func TestCertificateThatIsNearlyOverIsLoggedOnceAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ours := tlstest.New(t, "ours")
		// 25 h, one of which is over.
		order := open(t, signed(t, ours, "order"), func(c *mtls.Config) { c.Interval = 10 * time.Minute })
		time.Sleep(18 * time.Hour)
		if order.log.String() != "" {
			t.Errorf("with more than a fifth left it logged\n%s", order.log.String())
		}
		time.Sleep(10 * time.Hour)
		if n := strings.Count(order.log.String(), "nearly over"); n < 8 || n > 10 {
			t.Errorf("logged %d times in about 9 hours; want once an hour\n%s", n, order.log.String())
		}
		if _, err, _ := meet(t, order.Client("order"), server(t, order)); err == nil {
			t.Error("a certificate was believed 4 hours after its end")
		} else if _, ok := errors.AsType[x509.CertificateInvalidError](err); !ok {
			t.Errorf("got %v; want x509.CertificateInvalidError", err)
		}
	})
}

func TestWrongSettingsAndFilesAreNamedAtTheStart(t *testing.T) {
	t.Parallel()
	ours := tlstest.New(t, "ours")
	folder := signed(t, ours, "order")
	at := func(name string) string { return filepath.Join(folder, name) }
	over := t.TempDir()
	ours.Write(over, ours.Sign(-time.Minute, "order"))
	for _, c := range []struct {
		cfg  mtls.Config
		says string
	}{
		{mtls.Config{CertFile: at("cert.pem")}, "KeyFile is \"\"; want both or neither"},
		{mtls.Config{Callers: []string{"a"}}, "Callers is [\"a\"] without CAFile"},
		{mtls.Config{CAFile: at("ca.pem"), Callers: []string{""}}, "Callers has an empty name"},
		{mtls.Config{ServerName: "{name}.mesh"}, "ServerName is \"{name}.mesh\""},
		{mtls.Config{Interval: time.Millisecond}, "Interval is 1ms; want at least 100ms"},
		{mtls.Config{CAFile: at("none.pem")}, "CAFile: open"},
		{mtls.Config{CAFile: at("ca.pem"), CertFile: at("ca.pem"), KeyFile: at("key.pem")}, "CertFile"},
		{mtls.Config{CertFile: filepath.Join(over, "cert.pem"), KeyFile: filepath.Join(over, "key.pem")}, "holds a certificate for"},
	} {
		i, err := mtls.Open(c.cfg)
		if err == nil {
			i.Close()
			t.Errorf("%+v is taken; want an error with %q", c.cfg, c.says)
		} else if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q lacks %q", err, c.says)
		}
	}
}

func TestZeroConfigIsAClientOfTheSystemsRoots(t *testing.T) {
	t.Parallel()
	i, err := mtls.Open(mtls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	i.Close()
	i.Close() // may be called twice
	if i.HasCertificate() {
		t.Error("it has a certificate")
	}
	if _, err := i.Server(); err == nil {
		t.Error("it is a server without a certificate")
	}
	order := open(t, signed(t, tlstest.New(t, "ours"), "order"))
	if _, err, _ := meet(t, i.Client("order"), server(t, order)); err == nil {
		t.Error("an authority that the system does not know is believed")
	}
}

func TestCertificatesOfConsulsCommandAreThoseOfTheirServices(t *testing.T) {
	t.Parallel()
	consul := os.Getenv("CONSUL_BIN")
	if consul == "" {
		t.Skip("CONSUL_BIN is not set")
	}
	folder := t.TempDir()
	run := func(args ...string) {
		cmd := exec.CommandContext(t.Context(), consul, append([]string{"tls"}, args...)...)
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("consul tls %v: %v\n%s", args, err, out)
		}
	}
	run("ca", "create")
	at := func(file string) string { return filepath.Join(folder, file) }
	of := func(name, pair string, callers ...string) *told {
		run("cert", "create", "-client", "-dc=dc1", "-additional-dnsname="+name)
		return open(t, folder, func(c *mtls.Config) {
			c.CAFile, c.CertFile, c.KeyFile, c.Callers = at("consul-agent-ca.pem"), at(pair+".pem"), at(pair+"-key.pem"), callers
		})
	}
	order, gateway := of("order", "dc1-client-consul-0", "gateway"), of("gateway", "dc1-client-consul-1")
	if _, err, refused := meet(t, gateway.Client("order"), server(t, order)); err != nil || refused != nil {
		t.Errorf("gateway calls order: %v, %v", err, refused)
	}
	if _, err, _ := meet(t, gateway.Client("user"), server(t, order)); err == nil {
		t.Error("order passes for user")
	}
	if _, _, refused := meet(t, order.Client("order"), server(t, order)); refused == nil {
		t.Error("order may call order, which lets the gateway call alone")
	}
}

func BenchmarkLook(b *testing.B) {
	ours := tlstest.New(b, "ours")
	folder := b.TempDir()
	ours.Write(folder, ours.Sign(day, "order"))
	b.ReportAllocs()
	for b.Loop() {
		for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
			if _, err := os.ReadFile(filepath.Join(folder, name)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
