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
	token      string  // "" means that there are no ACLs
	of         *Server // nil for a server, else the one that the client agent has joined
	wan        bool    // it may be joined to other datacenters
	datacenter string
	ports      ports
	beside     []*Server // client agents
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
	return realWith(t, "")
}

// RealWithACLs is Real for a Consul that gives nothing to those who have no
// token: its ACLs are on, and deny by default. Client has a token that may do
// everything.
func RealWithACLs(t testing.TB) *Server {
	t.Helper()
	return realWith(t, managementToken)
}

func realWith(t testing.TB, token string) *Server {
	t.Helper()
	binary := os.Getenv("CONSUL_BIN")
	if binary == "" {
		found, err := exec.LookPath("consul")
		if err != nil {
			t.Skipf("needs a real Consul: CONSUL_BIN is not set, and there is no consul on the PATH (%v)", err)
		}
		binary = found
	}
	s := &Server{t: t, binary: binary, dir: t.TempDir(), token: token, datacenter: Datacenter}
	s.begin()
	return s
}

// OtherDatacenter starts the server of another datacenter, which is joined to this
// one: each answers questions about the other. It ends with the test.
func (s *Server) OtherDatacenter(name string) *Server {
	s.t.Helper()
	o := &Server{t: s.t, binary: s.binary, dir: s.t.TempDir(), token: s.token, datacenter: name}
	for _, side := range []*Server{s, o} {
		side.wan = true
	}
	s.Restart() // with a port for the other one
	o.begin()
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
// catalog, and asks the server for what it does not know itself. Its node is
// AgentNodeName. It ends with the test.
func (s *Server) Agent() *Server {
	s.t.Helper()
	a := &Server{t: s.t, binary: s.binary, dir: s.t.TempDir(), of: s, token: s.token, datacenter: s.datacenter}
	a.begin()
	s.beside = append(s.beside, a)
	return a
}

func (s *Server) begin() {
	s.t.Helper()
	s.t.Cleanup(func() {
		s.Kill()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, tr := range s.transports {
			tr.CloseIdleConnections()
		}
	})
	// Between finding free ports and taking them somebody else may be faster.
	for try := 1; ; try++ {
		var err error
		if s.ports, err = freePorts(); err != nil {
			s.t.Fatalf("consultest: find free ports: %v", err)
		}
		if err = s.start(); err == nil {
			return
		}
		s.Kill()
		if try == 3 {
			s.t.Fatalf("consultest: start %s: %v", s.binary, err)
		}
	}
}

// Addr returns host:port of the HTTP API.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports.HTTP)) }

// Client returns a client of Consul's API module with connections of its own,
// which are closed with the test.
func (s *Server) Client() *api.Client { return s.ClientWith(s.token) }

// ClientWith is Client with another token.
func (s *Server) ClientWith(token string) *api.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 100}
	s.mu.Lock()
	s.transports = append(s.transports, tr)
	s.mu.Unlock()
	c, err := api.NewClient(&api.Config{Address: s.Addr(), Scheme: "http", Token: token, HttpClient: &http.Client{Transport: tr}})
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

func (s *Server) node() string {
	if s.of != nil {
		return AgentNodeName
	}
	return NodeName
}

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

func (s *Server) gossip() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports.SerfLAN)) }

func (s *Server) gossipWAN() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports.SerfWAN))
}

func (s *Server) start() error {
	if s.wan && s.ports.SerfWAN < 0 {
		if err := s.ports.findWAN(); err != nil {
			return err
		}
	}
	settings := map[string]any{
		"node_name": s.node(), "datacenter": s.datacenter,
		"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "advertise_addr": "127.0.0.1",
		"data_dir": s.data(), "ports": s.ports, "log_level": "warn", "disable_update_check": true,
		"leave_on_terminate": false, "skip_leave_on_interrupt": true,
		// A server that was wiped knows of no agent, so each joins the other.
		"retry_join": s.others(), "retry_interval": "250ms",
	}
	if s.of == nil {
		settings["server"], settings["bootstrap_expect"] = true, 1
		settings["performance"] = map[string]any{"raft_multiplier": 1}
	}
	if s.token != "" {
		settings["primary_datacenter"] = Datacenter
		settings["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]any{"initial_management": s.token, "agent": s.token},
		}
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "consul.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	if s.run, err = startProcess(s.binary, "agent", "-config-file="+file); err != nil {
		return err
	}
	return s.wait()
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
		checks, _, err := client.Health().Node(s.node(), (&api.QueryOptions{}).WithContext(ctx))
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
