package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/term"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// session is what a command works with: where it reads and writes, and whom it asks.
type session struct {
	in        io.Reader
	out, errs io.Writer
	consul    *api.Client      // as the CONSUL_* variables say
	mesh      discovery.Config // how to open a mesh on the same Consul
	timeout   time.Duration    // of one answer
	terminal  bool             // out is one
	colour    bool             // out takes colours, and nobody has said no to them
	width     int              // of out in columns; 0: there is no limit
	log       *slog.Logger     // to errs: warnings, and with --verbose everything
}

// newSession returns a session; closeIdle ends what it holds. An error means a wrong
// setting: nothing was asked so far.
func newSession(g globals, in io.Reader, out, errs io.Writer) (s *session, closeIdle func(), err error) {
	cfg := consul.Config{Datacenter: g.Datacenter}
	client, closeIdle, err := consul.Open(cfg)
	if err != nil {
		return nil, nil, err
	}
	level := slog.LevelWarn
	if g.Verbose {
		level = slog.LevelDebug
	}
	s = &session{
		in: in, out: out, errs: errs, consul: client, timeout: g.Timeout,
		log: slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: level})),
	}
	s.mesh = discovery.Config{Consul: discovery.Consul{Datacenter: g.Datacenter}, InitialFetchTimeout: g.Timeout, Log: s.log}
	if isTerminal(out) {
		s.terminal = true
		s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		s.width, _, _ = term.GetSize(int(out.(*os.File).Fd())) // 0 if it can't be told
	}
	return s, closeIdle, nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// details is the log of what goes on inside, for rooms that warn of what a command tells
// by itself: it is there with --verbose alone.
func (s *session) details(ctx context.Context) *slog.Logger {
	if s.log.Enabled(ctx, slog.LevelDebug) {
		return s.log
	}
	return slog.New(slog.DiscardHandler)
}

// cannotAsk is the error of a command that had no answer of Consul, with what to do.
// The end of ctx by a signal stays what it is.
func (s *session) cannotAsk(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return err
	}
	return &exitError{exitNoConsul, fmt.Errorf("ask Consul at %s: %w; %s", consul.Config{}, err, advice(err))}
}

// advice says what to do about trouble with Consul.
func advice(err error) string {
	text := err.Error()
	switch code := consul.StatusCode(err); {
	case errors.Is(err, discovery.ErrEnterprise):
		return "leave CONSUL_NAMESPACE and CONSUL_PARTITION empty, or use Consul Enterprise"
	case errors.Is(err, discovery.ErrNoDatacenter):
		return "see that --datacenter is right and that its servers are joined: consul members -wan"
	case consul.Denied(err), strings.Contains(text, "token"):
		return "set CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE to a token with service:read and node:read"
	case strings.Contains(text, "leader"):
		return "see why its servers have no leader: consul operator raft list-peers"
	case strings.Contains(text, "HTTP response to HTTPS client"):
		return "use http in place of https in CONSUL_HTTP_ADDR"
	case strings.Contains(text, "HTTP request to an HTTPS server"):
		return "use https in place of http in CONSUL_HTTP_ADDR"
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"):
		return "set CONSUL_CACERT, CONSUL_TLS_SERVER_NAME, CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY as this Consul wants them"
	case code == http.StatusTooManyRequests:
		return "raise Consul's limits.http_max_conns_per_client"
	case code >= http.StatusInternalServerError:
		return "look into Consul's log"
	default:
		return "see that Consul runs there and that this is its HTTP port, or set CONSUL_HTTP_ADDR"
	}
}
