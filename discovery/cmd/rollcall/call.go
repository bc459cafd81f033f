package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/internal/pause"
)

type callCmd struct {
	Service string `arg:"" help:"Service to call."`
	Path    string `arg:"" optional:"" default:"/" help:"Path, and query, of the request; with --grpc the method, as package.Service/Method."`

	Requests    int      `short:"n" default:"1" help:"How many requests to send."`
	Concurrency int      `short:"c" default:"1" help:"How many at a time."`
	Rate        float64  `placeholder:"PER-SECOND" help:"How many a second at most. 0: as fast as they are answered."`
	Method      string   `short:"X" placeholder:"METHOD" help:"Method of HTTP. Empty: GET, or POST with --data."`
	Data        string   `short:"d" placeholder:"TEXT" help:"Body: a text, @file, or @- for standard input. With --grpc the message, in JSON."`
	Header      []string `short:"H" sep:"none" placeholder:"NAME:VALUE" help:"A header of each request, or metadata of gRPC; may be given several times."`
	GRPC        bool     `name:"grpc" help:"Call a unary method of gRPC, which the instances describe by server reflection."`

	Output string `short:"o" enum:"table,json,yaml" default:"table" help:"Form: ${enum}."`

	CA   string `name:"ca" placeholder:"FILE" help:"Roots in PEM that the certificates of instances must come from. Empty: the system's."`
	Cert string `placeholder:"FILE" help:"Certificate in PEM to show to instances that speak TLS."`
	Key  string `placeholder:"FILE" help:"Its key in PEM."`
	selecting
}

// Help is shown by --help.
func (*callCmd) Help() string {
	return `Each request goes through the client that programs use (httpmesh, grpcmesh): it is balanced,
tried again where that is safe, and bounded by --timeout in all. A POST without an
Idempotency-Key is tried again only if it was not served. Of a single request the answer's
body is printed, 64 KiB at most.

A request has failed if it had no answer, or one that says that the service failed (5xx, 429;
of gRPC the like). Exit code 1 says that one has.

Examples:

    rollcall call order /orders/1
    rollcall call order /orders/1 -n 50 -c 4 --rate 20
    rollcall call order /orders -d '{"item":"tea"}' -H 'Idempotency-Key: "7"'
    rollcall call user grpc.health.v1.Health/Check --grpc`
}

// The bounds of a call.
const (
	mostRequests = 100_000
	mostAtOnce   = 256
	leastRate    = 0.001 // the time of the last one can be told
	mostData     = 10 << 20
	mostBody     = 64 << 10 // of an answer that is shown
)

// Validate is called by kong.
func (c *callCmd) Validate() error {
	switch {
	case c.Requests < 1 || c.Requests > mostRequests:
		return fmt.Errorf("--requests is %d; want 1 to %d", c.Requests, mostRequests)
	case c.Concurrency < 1 || c.Concurrency > mostAtOnce:
		return fmt.Errorf("--concurrency is %d; want 1 to %d", c.Concurrency, mostAtOnce)
	case c.Rate != 0 && !(c.Rate >= leastRate): // which NaN is not either
		return fmt.Errorf("--rate is %v; want 0, or %v and more", c.Rate, leastRate)
	case !c.GRPC && !strings.HasPrefix(c.Path, "/"):
		return fmt.Errorf("the path is %q; want one that begins with a slash", c.Path)
	case c.GRPC && c.Method != "":
		return errors.New("--method is for HTTP; with --grpc the method stands in place of the path")
	case !c.TLS && c.CA+c.Cert+c.Key != "":
		return errors.New("--ca, --cert and --key need --tls")
	}
	return nil
}

// caller sends one request, and says what became of it. It is called by many goroutines
// at once.
type caller func(ctx context.Context) answer

// Run sends the requests and shows what became of them.
func (c *callCmd) Run(ctx context.Context, s *session) error {
	data, headers, err := c.input(s.in)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	protocol := catalog.HTTP
	if c.GRPC {
		protocol = catalog.GRPC
	}
	selection, err := c.selection(protocol)
	if err != nil {
		return err
	}
	// Trouble with Consul is told here, in the command's words and at once.
	if _, err := s.askOne(ctx, c.Service); err != nil {
		return err
	}
	cfg := s.mesh
	cfg.Log = s.details(ctx)
	cfg.Select = map[string]catalog.Selection{c.Service: selection}
	if c.TLS {
		cfg.TLS = mtls.Config{CAFile: c.CA, CertFile: c.Cert, KeyFile: c.Key}
	}
	mesh, err := discovery.Open(ctx, cfg)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	defer func() { _ = mesh.Close() }()

	open, request := c.overHTTP, c.verb()+" "+c.Path
	if c.GRPC {
		open, request = c.overGRPC, c.Path
	}
	call, end, err := open(ctx, s, mesh, data, headers)
	if err != nil {
		return err
	}
	defer end()
	progress, wipe := progressOf(s, c.Requests)
	t := newTally(c.Service, request, progress)
	c.send(ctx, s.timeout, call, t)
	wipe()
	sum := t.sum()
	if done, err := (form{c.Output}).document(s, sum); err != nil {
		return err
	} else if !done {
		sum.print(s)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case sum.Failed > 0:
		return &exitError{code: exitNo} // the text has said so
	}
	return nil
}

// header is one of each request.
type header struct{ name, value string }

// input returns what the flags give each request.
func (c *callCmd) input(in io.Reader) (data []byte, headers []header, err error) {
	for _, text := range c.Header {
		name, value, ok := strings.Cut(text, ":")
		h := header{name, strings.TrimSpace(value)}
		if !ok || !httpguts.ValidHeaderFieldName(h.name) || !httpguts.ValidHeaderFieldValue(h.value) {
			return nil, nil, fmt.Errorf("--header is %q; want name:value", text)
		}
		headers = append(headers, h)
	}
	data, err = read(c.Data, in)
	return data, headers, err
}

// read returns what --data names.
func read(data string, in io.Reader) ([]byte, error) {
	name, isFile := strings.CutPrefix(data, "@")
	if !isFile {
		return []byte(data), nil
	}
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	body, err := io.ReadAll(io.LimitReader(in, mostData+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("--data: read %s: %w", name, err)
	case len(body) > mostData:
		return nil, fmt.Errorf("--data: %s has more than %d bytes", name, mostData)
	}
	return body, nil
}

// send sends the requests, each with a time limit, until ctx ends.
func (c *callCmd) send(ctx context.Context, limit time.Duration, call caller, t *tally) {
	var next atomic.Int64
	var sending sync.WaitGroup
	began := time.Now()
	for range min(c.Concurrency, c.Requests) {
		sending.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= int64(c.Requests) {
					return
				}
				if c.Rate > 0 {
					due := began.Add(time.Duration(float64(n) / c.Rate * float64(time.Second)))
					_ = pause.For(ctx, time.Until(due), nil)
				}
				if ctx.Err() != nil {
					return
				}
				limited, cancel := context.WithTimeout(ctx, limit)
				sent := time.Now()
				a := call(limited)
				a.took = time.Since(sent)
				cancel()
				if ctx.Err() != nil {
					return // what was cut off says nothing
				}
				t.add(a)
			}
		})
	}
	sending.Wait()
}
