// Package app is what every service's main does: read the settings, start in
// the right order, and leave without losing a request.
//
// [Main] runs one of three commands: serve (the default), health (asks the
// running service's /livez, for images without a shell) and version.
//
// Start: settings, logger, metrics, mesh, the service's own parts (its store),
// listeners, admin port, traffic ports, registration. Consul may be away: the
// service serves and registers when it comes.
//
// Drain, on SIGTERM or SIGINT: readiness false and "draining" in Consul, seen
// there, a moment to settle; no new connections, requests in flight ended;
// deregistered; mesh, store and admin port closed; the last spans sent. A second
// signal cuts it short.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

// Exit codes.
const (
	// ExitDrained: told to stop, and everything was served; or the command was
	// done.
	ExitDrained = 0
	// ExitFailed: could not start, or could not go on serving; health: not live.
	ExitFailed = 1
	// ExitSetting: a setting is wrong; standard error names it.
	ExitSetting = 2
	// ExitCut: a second signal cut the drain short.
	ExitCut = 3
)

// Spec says what one service is.
type Spec struct {
	// Name of the service, in Consul too. Required.
	Name string
	// Describe it in one sentence, for --help.
	Describe string
	// Peers are the services it talks to; they are followed from the start.
	Peers []string
	// TryTimeout is the default of that setting. 0 means 1s.
	TryTimeout time.Duration
	// Settings of the service's own: a pointer to a struct with kong's tags.
	// nil means none.
	Settings any
	// RequirePeers makes the first answer about each peer a required dependency:
	// the service is not ready before; for a door, which can do nothing without
	// them.
	RequirePeers bool
	// Edge says that requests come from outside the mesh: what their
	// Rollcall-Service header says counts for nothing, and no Rollcall-* header
	// goes out. The others answer 421 where it names another service.
	Edge bool
	// Complete is called when the settings are read, for what the spec has of them. An
	// error stops the start; it is best a *SettingError. nil means nothing is to do.
	Complete func(*Spec) error
	// Build makes the service's parts. Required. What it opens it closes by
	// Runtime.OnClose; its context ends when the start is given up.
	Build func(context.Context, *Runtime) (Parts, error)
}

// Parts are what a service serves.
type Parts struct {
	// Handler of the traffic port (the setting ROLLCALL_LISTEN), which is the
	// one that is registered. Required.
	Handler http.Handler
	// More ports, each with a handler of its own.
	More []Port
	// TLS is the identity of the listeners where that is not the service's own. nil
	// means the service's own; at an edge, plain text.
	TLS *mtls.Config
	// GRPC registers the services of the gRPC port (the setting
	// ROLLCALL_GRPC_LISTEN), which has an entry of its own. nil means no such port.
	GRPC func(grpc.ServiceRegistrar)
	// Pages are shown on the admin port besides, by the mux's pattern. nil means none.
	Pages map[string]http.Handler
	// Stream is how long one piece of a body may take, where answers may last
	// for ever (see web.Limits). 0 means that the fixed timeouts hold.
	Stream time.Duration
}

// Port is an address and the handler of what comes there.
type Port struct {
	Addr    Addr
	Handler http.Handler
}

// Runtime is what Build finds.
type Runtime struct {
	Mesh *discovery.Mesh
	// Transport sends to services by their names: Mesh's, over TLS where the
	// settings say so.
	Transport http.RoundTripper
	Health    *health.Registry
	Metrics   *metrics.Metrics
	// Registry is what /metrics shows, for metrics of the service's own.
	Registry prometheus.Registerer
	Log      *slog.Logger

	closers []func() error
}

// OnClose has close called after the last request was served. The last one
// given is called first.
func (r *Runtime) OnClose(close func() error) { r.closers = append(r.closers, close) }

// Go runs what works beside the requests until the last of them was served: it must
// return soon when its context ends. An error from before that is logged.
func (r *Runtime) Go(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			r.Log.Error("a part of the service has ended", "error", err)
		}
	}()
	r.OnClose(func() error {
		cancel()
		<-done
		return nil
	})
}

func (r *Runtime) close() error {
	var errs []error
	for _, c := range slices.Backward(r.closers) {
		errs = append(errs, c())
	}
	r.closers = nil
	return errors.Join(errs...)
}

type cli struct {
	Settings
	Serve   struct{} `cmd:"" default:"1" help:"Serve until told to stop (the default)."`
	Health  struct{} `cmd:"" help:"Ask the running service whether it is live, at its admin port; exit with 0 or 1."`
	Version struct{} `cmd:"" help:"Print the version."`
}

// Main runs the service with the process's arguments, environment and signals,
// and returns the exit code.
func Main(spec Spec) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	return Run(context.Background(), spec, os.Args[1:], Process{Signals: signals, Stdout: os.Stdout, Stderr: os.Stderr})
}

// Process is what Run knows of the process around it.
type Process struct {
	// Signals to stop: the first drains, the second cuts the drain short.
	Signals <-chan os.Signal
	// Stdout gets answers to commands, Stderr the log.
	Stdout, Stderr io.Writer
	// Listen opens a listener. nil means net.Listen's.
	Listen func(ctx context.Context, addr string) (net.Listener, error)
}

// Run is Main for any process. The environment is read all the same.
func Run(ctx context.Context, spec Spec, args []string, p Process) int {
	if p.Listen == nil {
		p.Listen = func(ctx context.Context, addr string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", addr)
		}
	}
	settings, command, err := parse(spec, args, p)
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
		return ExitSetting
	}
	switch command {
	case "serve":
		if spec.Complete != nil {
			if err := spec.Complete(&spec); err != nil {
				fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
				return ExitSetting
			}
		}
		return serve(ctx, spec, settings, p)
	case "health":
		if err := askLive(ctx, string(settings.AdminListen)); err != nil {
			fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
			return ExitFailed
		}
		return ExitDrained
	case "version":
		fmt.Fprintf(p.Stdout, "%s %s\n", spec.Name, version())
		return ExitDrained
	}
	return ExitDrained // --help was printed
}

// parse reads flags and environment. The command is empty if help was asked
// for and printed.
func parse(spec Spec, args []string, p Process) (*Settings, string, error) {
	tryTimeout := spec.TryTimeout
	if tryTimeout == 0 {
		tryTimeout = time.Second
	}
	var c cli
	helped := false
	options := []kong.Option{
		kong.Name(spec.Name),
		kong.Description(spec.Describe),
		kong.Vars{"try_timeout": tryTimeout.String()},
		kong.Writers(p.Stdout, p.Stderr),
		kong.Exit(func(int) { helped = true }),
	}
	var wrong *SettingError
	options = append(options, kinds(&wrong)...)
	if spec.Settings != nil {
		options = append(options, kong.Embed(spec.Settings))
	}
	k, err := kong.New(&c, options...)
	if err != nil {
		return nil, "", fmt.Errorf("settings: %w", err)
	}
	parsed, err := k.Parse(args)
	if helped {
		return nil, "", nil
	}
	if err != nil && wrong != nil {
		return nil, "", wrong
	}
	if err != nil {
		return nil, "", err
	}
	if err := c.check(); err != nil {
		return nil, "", err
	}
	return &c.Settings, parsed.Command(), nil
}
