package consultest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// Server is a real Consul process: a single server with its data on disk, or a
// client agent of one (see Agent). Its methods are for the test's own goroutine,
// and end the test when they fail.
type Server struct {
	t          testing.TB
	binary     string
	dir        string
	name       string  // of its node
	token      string  // "" means that there are no ACLs
	tls        *TLS    // nil: plain HTTP
	of         *Server // nil for a server, else the one that the client agent has joined
	wan        bool    // it may be joined to other datacenters
	datacenter string
	ports      ports
	client     string    // the address that the HTTP API listens at
	bind       string    // the address that it is known to the others by
	beside     []*Server // the other servers, and client agents
	expect     int       // servers
	run        *process  // nil while none runs

	mu         sync.Mutex // guards what follows
	transports []*http.Transport
}

// AgentNodeName is the name of a client agent's node.
const AgentNodeName = "agent"

const (
	// startLimit is how long a Consul may take to come up with a leader. It
	// takes about two seconds when the machine is idle.
	startLimit = 60 * time.Second
	// stopLimit is how long it may take to stop when asked to.
	stopLimit = 15 * time.Second
)

// Real starts a real Consul on free ports of the loopback interface, waits
// until it has a leader and has entered itself into its catalog, and ends it
// with the test. The binary is the one that CONSUL_BIN names, else consul on
// the PATH; without one the test is skipped.
func Real(t testing.TB) *Server {
	t.Helper()
	return begun(newServer(t))
}

// RealWithACLs is Real for a Consul that gives nothing to those who have no
// token: its ACLs are on, and deny by default. Client has a token that may do
// everything.
func RealWithACLs(t testing.TB) *Server {
	t.Helper()
	s := newServer(t)
	s.token = managementToken
	return begun(s)
}

// TLS names the PEM files of a Consul's own certificate and its key, and of the CA
// that has to have signed its callers'.
type TLS struct{ CAFile, CertFile, KeyFile string }

// RealWithTLS is Real for a Consul that serves its API by HTTPS alone, and to those
// alone who have a certificate of the CA (verify_incoming). The server's own must be
// for 127.0.0.1, and for a client as well, since Client uses it.
func RealWithTLS(t testing.TB, files TLS) *Server {
	t.Helper()
	s := newServer(t)
	s.tls = &files
	return begun(s)
}

// RealServers is Real for a cluster of n servers, of which each is in the others'
// place when they are lost. The first one's node is NodeName.
func RealServers(t testing.TB, n int) []*Server {
	t.Helper()
	var all []*Server
	for i := range n {
		s := newServer(t)
		s.expect = n
		if i > 0 {
			s.name = fmt.Sprintf("%s-%d", NodeName, i+1)
		}
		all = append(all, s)
	}
	for i, s := range all {
		for j, other := range all {
			if i != j {
				s.beside = append(s.beside, other)
			}
		}
	}
	begin(all...)
	return all
}

func begun(s *Server) *Server {
	begin(s)
	return s
}

func newServer(t testing.TB) *Server {
	t.Helper()
	binary := os.Getenv("CONSUL_BIN")
	if binary == "" {
		found, err := exec.LookPath("consul")
		if err != nil {
			t.Skipf("needs a real Consul: CONSUL_BIN is not set, and there is no consul on the PATH (%v)", err)
		}
		binary = found
	}
	return &Server{t: t, binary: binary, dir: t.TempDir(), name: NodeName, datacenter: Datacenter, client: "127.0.0.1", bind: "127.0.0.1", expect: 1}
}

// OtherDatacenter starts the server of another datacenter, which is joined to this
// one: each answers questions about the other. It ends with the test.
func (s *Server) OtherDatacenter(name string) *Server {
	s.t.Helper()
	o := newServer(s.t)
	o.token, o.datacenter = s.token, name
	for _, side := range []*Server{s, o} {
		side.wan = true
	}
	s.Restart() // with a port for the other one
	begin(o)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for _, ask := range []struct{ of, about *Server }{{s, o}, {o, s}} {
		client, q := ask.of.Client(), (&api.QueryOptions{Datacenter: ask.about.datacenter}).WithContext(ctx)
		joined := ask.of.Client().Agent().Join(ask.about.gossipWAN(), true)
		for {
			nodes, _, err := client.Catalog().Nodes(q)
			if err == nil && len(nodes) > 0 {
				break
			}
			select {
			case <-ctx.Done():
				s.t.Fatalf("consultest: %s does not answer about %s within %v: %v", ask.of.datacenter, ask.about.datacenter, startLimit, errors.Join(err, joined))
			case <-tick.C:
			}
		}
	}
	return o
}

// Agent starts a client agent, as each machine of a cluster has one: it has no
// catalog, and asks the server for what it does not know itself. The first one's node
// is AgentNodeName. It ends with the test.
func (s *Server) Agent() *Server {
	s.t.Helper()
	return s.AgentAt("127.0.0.1", "127.0.0.1")
}

// AgentAt is Agent for one whose API listens at one address of this machine, and that
// the others know by another.
func (s *Server) AgentAt(client, advertised string) *Server {
	s.t.Helper()
	a := &Server{
		t: s.t, binary: s.binary, dir: s.t.TempDir(), of: s, token: s.token, datacenter: s.datacenter,
		name: AgentNodeName, client: client, bind: advertised,
	}
	agents := 0
	for _, other := range s.beside {
		if other.of != nil {
			agents++
		}
	}
	if agents > 0 {
		a.name = fmt.Sprintf("%s-%d", AgentNodeName, agents+1)
	}
	begin(a)
	s.beside = append(s.beside, a)
	return a
}

// begin starts those that need each other to come up.
func begin(all ...*Server) {
	t := all[0].t
	t.Helper()
	t.Cleanup(func() {
		for _, s := range all {
			s.Kill()
			s.mu.Lock()
			for _, tr := range s.transports {
				tr.CloseIdleConnections()
			}
			s.mu.Unlock()
		}
	})
	// Between finding free ports and taking them somebody else may be faster.
	for try := 1; ; try++ {
		err := beginOnce(all)
		if err == nil {
			return
		}
		for _, s := range all {
			s.Kill()
		}
		if try == 3 {
			t.Fatalf("consultest: start %s: %v", all[0].binary, err)
		}
	}
}

func beginOnce(all []*Server) (err error) {
	for _, s := range all {
		if s.ports, err = freePorts(s.client, s.bind); err != nil {
			return fmt.Errorf("find free ports: %w", err)
		}
		if s.tls != nil {
			s.ports.HTTP, s.ports.HTTPS = -1, s.ports.HTTP
		}
	}
	for _, s := range all {
		if err := s.launch(); err != nil {
			return err
		}
	}
	for _, s := range all {
		if err := s.wait(); err != nil {
			return err
		}
	}
	return nil
}

// Addr returns host:port of the HTTP API.
func (s *Server) Addr() string {
	return net.JoinHostPort(s.client, strconv.Itoa(max(s.ports.HTTP, s.ports.HTTPS)))
}

// Node returns the name of its node.
func (s *Server) Node() string { return s.name }

// DNS returns host:port of Consul's DNS, which answers for names that end in
// .consul only.
func (s *Server) DNS() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports.DNS)) }

// Client returns a client of Consul's API module with connections of its own,
// which are closed with the test.
func (s *Server) Client() *api.Client { return s.ClientWith(s.token) }

// ClientWith is Client with another token.
func (s *Server) ClientWith(token string) *api.Client {
	tr, scheme := &http.Transport{MaxIdleConnsPerHost: 100}, "http"
	s.mu.Lock()
	s.transports = append(s.transports, tr)
	s.mu.Unlock()
	var err error
	if s.tls != nil {
		scheme = "https"
		if tr.TLSClientConfig, err = api.SetupTLSConfig(&api.TLSConfig{CAFile: s.tls.CAFile, CertFile: s.tls.CertFile, KeyFile: s.tls.KeyFile}); err != nil {
			s.t.Fatalf("consultest: the files of TLS: %v", err)
		}
	}
	c, err := api.NewClient(&api.Config{Address: s.Addr(), Scheme: scheme, Token: token, HttpClient: &http.Client{Transport: tr}})
	if err != nil {
		s.t.Fatalf("consultest: make a client of %s: %v", s.Addr(), err)
	}
	return c
}

// Restart stops the process and starts it again on its data, at the same
// address, or just starts it after Kill. It returns when there is a leader.
func (s *Server) Restart() {
	s.t.Helper()
	s.stop()
	if err := s.start(); err != nil {
		s.t.Fatalf("consultest: restart: %v", err)
	}
}

// Wipe is Restart on an empty data directory.
func (s *Server) Wipe() {
	s.t.Helper()
	s.stop()
	if err := os.RemoveAll(s.data()); err != nil {
		s.t.Fatalf("consultest: wipe: %v", err)
	}
	if err := s.start(); err != nil {
		s.t.Fatalf("consultest: start on an empty disk: %v", err)
	}
}

// Pause stops the process where it is, as SIGSTOP does: its ports accept
// connections and nothing answers. Resume lets it go on.
func (s *Server) Pause() {
	s.t.Helper()
	s.signal("pause", (*process).pause)
}

// Resume ends Pause.
func (s *Server) Resume() {
	s.t.Helper()
	s.signal("resume", (*process).resume)
}

func (s *Server) signal(what string, do func(*process) error) {
	s.t.Helper()
	if s.run == nil {
		s.t.Fatalf("consultest: %s: Consul is not running", what)
	}
	if err := do(s.run); err != nil {
		s.t.Fatalf("consultest: %s: %v", what, err)
	}
}

// Kill ends the process without warning, and waits until it is gone. Restart
// brings it back.
func (s *Server) Kill() {
	if s.run == nil {
		return
	}
	s.run.kill()
	<-s.run.ended
	s.run = nil
}

// stop asks the process to end, and kills it if it does not.
func (s *Server) stop() {
	if s.run == nil {
		return
	}
	if err := s.run.interrupt(); err == nil {
		timer := time.NewTimer(stopLimit)
		defer timer.Stop()
		select {
		case <-s.run.ended:
		case <-timer.C:
		}
	}
	s.Kill()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// others are the addresses to gossip with.
func (s *Server) others() []string {
	all := []string{}
	if s.of != nil {
		all = append(all, s.of.gossip())
	}
	for _, a := range s.beside {
		all = append(all, a.gossip())
	}
	return all
}

func (s *Server) gossip() string { return net.JoinHostPort(s.bind, strconv.Itoa(s.ports.SerfLAN)) }

func (s *Server) gossipWAN() string {
	return net.JoinHostPort(s.bind, strconv.Itoa(s.ports.SerfWAN))
}

func (s *Server) start() error {
	if err := s.launch(); err != nil {
		return err
	}
	return s.wait()
}

func (s *Server) launch() error {
	if s.wan && s.ports.SerfWAN < 0 {
		if err := s.ports.findWAN(s.bind); err != nil {
			return err
		}
	}
	settings := map[string]any{
		"node_name": s.name, "datacenter": s.datacenter,
		"bind_addr": s.bind, "client_addr": s.client, "advertise_addr": s.bind,
		"data_dir": s.data(), "ports": s.ports, "log_level": "warn", "disable_update_check": true,
		"leave_on_terminate": false, "skip_leave_on_interrupt": true,
		// A server that was wiped knows of no agent, so each joins the other.
		"retry_join": s.others(), "retry_interval": "250ms",
		// Without them its metrics are empty, or by the host's name.
		"telemetry": map[string]any{"prometheus_retention_time": "60s", "disable_hostname": true},
	}
	if s.of == nil {
		settings["server"], settings["bootstrap_expect"] = true, s.expect
		settings["performance"] = map[string]any{"raft_multiplier": 1}
	}
	if s.token != "" {
		settings["primary_datacenter"] = Datacenter
		settings["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]any{"initial_management": s.token, "agent": s.token},
		}
	}
	if s.tls != nil {
		settings["tls"] = map[string]any{"https": map[string]any{
			"ca_file": s.tls.CAFile, "cert_file": s.tls.CertFile, "key_file": s.tls.KeyFile, "verify_incoming": true,
		}}
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "consul.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	s.run, err = startProcess(s.binary, "agent", "-config-file="+file)
	return err
}

// wait returns when Consul has a leader, and its own node is passing in the
// catalog.
func (s *Server) wait() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	client := s.Client()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		checks, _, err := client.Health().Node(s.name, (&api.QueryOptions{}).WithContext(ctx))
		for _, c := range checks {
			if c.CheckID == "serfHealth" && c.Status == api.HealthPassing { // of the node; there may be services on it
				return nil
			}
		}
		select {
		case <-s.run.ended:
			return fmt.Errorf("it ended at once (%w):\n%s", s.run.err, s.run.tail())
		case <-ctx.Done():
			return fmt.Errorf("no leader within %v (last answer: %d checks of its node, %w):\n%s", startLimit, len(checks), cmp.Or(err, ctx.Err()), s.run.tail())
		case <-tick.C:
		}
	}
}
