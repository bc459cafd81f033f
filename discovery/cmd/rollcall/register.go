package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall/internal/member"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

type registerCmd struct {
	Name      string            `required:"" placeholder:"SERVICE" help:"Service that it is an instance of."`
	Port      int               `required:"" placeholder:"PORT" help:"Port that others connect to."`
	Host      string            `placeholder:"ADDRESS" help:"Address that others connect to. Empty: this machine's, as seen on the way to Consul."`
	ID        string            `name:"id" placeholder:"ID" help:"ID of the instance. Empty: SERVICE-HOSTNAME-PORT."`
	Tag       []string          `sep:"none" placeholder:"TAG" help:"Tag of the entry; may be given several times."`
	Meta      map[string]string `mapsep:"none" placeholder:"KEY=VALUE" help:"Meta of the entry; may be given several times."`
	Weight    int               `placeholder:"1" help:"Share of the requests, relative to the other instances."`
	Protocol  string            `placeholder:"http" help:"What the port speaks: http or grpc. Empty: it is not said, and taken for http."`
	TLS       bool              `name:"tls" help:"The port speaks TLS."`
	CheckHTTP string            `name:"check-http" xor:"check" placeholder:"PATH" help:"Consul asks for this path every 5s as well, and wants a status of 2xx."`
	CheckTCP  bool              `name:"check-tcp" xor:"check" help:"Consul connects every 5s as well."`
	CheckTTL  time.Duration     `name:"check-ttl" placeholder:"30s" help:"How long Consul believes what rollcall says of the port, which it does three times as often."`
	Program   []string          `arg:"" optional:"" help:"Program to start, after --, with its arguments. None: it runs already."`
}

// Help is shown by --help.
func (*registerCmd) Help() string {
	return `Starts a program that knows nothing of Consul, and makes it a member: it is registered when
its port answers, and critical while that does not answer any more. At the first SIGTERM or ^C
Consul says that it leaves, clients turn away, and then it gets the signal, so that it loses no
request; a second one makes that short. All other signals go to it at once. When it has ended,
by itself or not, it is deregistered. The exit code is its own, or 128 and the number of the
signal that ended it.

Its input and outputs are those of rollcall; but it has no input where that is a terminal,
since ^C is for rollcall.

Without a program it registers one that runs already, until SIGTERM or ^C.

Examples:

    rollcall register --name legacy --port 9000 -- ./legacy --verbose
    rollcall register --name legacy --port 9000 --check-http /healthz --tag v1 -- ./legacy
    rollcall register --name db --port 5432 --host 10.0.0.5 --check-tcp`
}

// Run is the life of a member.
func (c *registerCmd) Run(ctx context.Context, s *session) error {
	settings := c.settings()
	if err := s.wouldRegister(settings); err != nil { // before there is a program to end for it
		return &exitError{exitUsage, err}
	}
	mesh, err := discovery.Open(ctx, s.mesh)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	defer func() { _ = mesh.Close() }() // the entry is closed, and its error told
	address := net.JoinHostPort(cmp.Or(c.Host, "localhost"), strconv.Itoa(c.Port))
	settings.Ready = func() error { return member.Answers(ctx, address) }
	settings.Trace = &registration.Trace{Changed: func(service, id string, _, to registration.State, why string) {
		if to == registration.StateRecovering {
			why = ": " + clean(why)
		} else {
			why = "" // what was to be expected
		}
		fmt.Fprintf(s.errs, "rollcall: %s/%s is %s%s\n", service, id, to, why)
	}}

	// From here on signals are the member's: main would end at the second one.
	signals := make(chan os.Signal, 8)
	signal.Reset(member.Signals()...)
	signal.Notify(signals, member.Signals()...)
	defer signal.Stop(signals)
	code, err := member.Run(ctx, member.Config{
		Program: c.Program, In: s.in, Out: s.out, Errs: s.errs,
		Address: address, Signals: signals, Log: s.log,
		Register: func() (member.Entry, error) { return mesh.Register(settings) }, //nolint:contextcheck // an entry ends by Close
	})
	switch {
	case errors.Is(err, member.ErrTaken):
		return &exitError{code, fmt.Errorf("%w; stop it, or leave out the program to register what runs there", err)}
	case err != nil || code != 0:
		return &exitError{code, err}
	}
	return nil
}

// wouldRegister says what is wrong with the settings of an entry.
func (s *session) wouldRegister(cfg registration.Config) error {
	cfg.Client, cfg.ConsulAddr = s.consul, consul.Config{}.HostPort()
	return cfg.Validate()
}

// settings are those of the entry.
func (c *registerCmd) settings() registration.Config {
	cfg := registration.Config{
		Service: c.Name, ID: c.ID, Host: c.Host, Port: c.Port, Protocol: c.Protocol, TLS: c.TLS,
		Tags: c.Tag, Meta: c.Meta, Weight: c.Weight, TTL: c.CheckTTL,
	}
	switch {
	case c.CheckHTTP != "":
		cfg.Checks = []registration.Check{{Name: "http", Protocol: catalog.HTTP, Path: c.CheckHTTP, TLSSkipVerify: c.TLS}}
	case c.CheckTCP:
		cfg.Checks = []registration.Check{{Name: "tcp", Protocol: registration.TCP}}
	}
	return cfg
}
