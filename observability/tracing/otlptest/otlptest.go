// Package otlptest has a collector of traces inside a test: it takes OTLP by HTTP and by
// gRPC, and tells what spans came.
//
//	c := otlptest.New(t)
//	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.HTTP())
//	… // what is under test, and Shutdown of its otlp.Provider
//	fmt.Print(c.Tree())
package otlptest

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Span is one span as it came.
type Span struct {
	Service, Name string
	// Kind is server, client or internal.
	Kind string
	// Trace, ID and Parent are in hexadecimal digits; Parent is empty for a root.
	Trace, ID, Parent string
	// Attributes by their names, each as text.
	Attributes map[string]string
	// Failed says that its status is an error, Message which.
	Failed  bool
	Message string

	start uint64
}

// Collector takes spans until the test ends. Its methods may be called by any number of
// goroutines.
type Collector struct {
	collector.UnimplementedTraceServiceServer
	http, rpc string

	mu    sync.Mutex
	spans []Span
}

// New starts a collector, which ends with the test.
func New(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{}
	web := httptest.NewServer(http.HandlerFunc(c.post))
	t.Cleanup(web.Close)
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(lis) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	c.http, c.rpc = web.URL, "http://"+lis.Addr().String()
	return c
}

// HTTP is the endpoint for OTLP by HTTP.
func (c *Collector) HTTP() string { return c.http }

// GRPC is the endpoint for OTLP by gRPC.
func (c *Collector) GRPC() string { return c.rpc }

// post takes a request of OTLP by HTTP.
func (c *Collector) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	request := new(collector.ExportTraceServiceRequest)
	if err == nil && r.URL.Path == "/v1/traces" && r.Header.Get("Content-Type") == "application/x-protobuf" {
		err = proto.Unmarshal(body, request)
	} else if err == nil {
		err = fmt.Errorf("%s %s with %s; want protobuf at /v1/traces", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.take(request)
	w.Header().Set("Content-Type", "application/x-protobuf") // the empty message has no byte
}

// Export takes a call of OTLP by gRPC.
func (c *Collector) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.take(request)
	return new(collector.ExportTraceServiceResponse), nil
}

var kinds = map[otlp.Span_SpanKind]string{
	otlp.Span_SPAN_KIND_SERVER: "server", otlp.Span_SPAN_KIND_CLIENT: "client", otlp.Span_SPAN_KIND_INTERNAL: "internal",
}

func (c *Collector) take(request *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range request.GetResourceSpans() {
		service := texts(of.GetResource().GetAttributes())["service.name"]
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, Span{
					Service: service, Name: s.GetName(), Kind: kinds[s.GetKind()],
					Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()), Parent: hex.EncodeToString(s.GetParentSpanId()),
					Attributes: texts(s.GetAttributes()),
					Failed:     s.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR, Message: s.GetStatus().GetMessage(),
					start: s.GetStartTimeUnixNano(),
				})
			}
		}
	}
}

func texts(attributes []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attributes {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			all[a.GetKey()] = v.StringValue
		case *common.AnyValue_IntValue:
			all[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		case *common.AnyValue_BoolValue:
			all[a.GetKey()] = strconv.FormatBool(v.BoolValue)
		default:
			all[a.GetKey()] = a.GetValue().String()
		}
	}
	return all
}

// Spans returns those that came so far, by the time of their beginning.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Clone(c.spans)
	slices.SortStableFunc(all, func(a, b Span) int { return cmp.Compare(a.start, b.start) })
	return all
}

// Tree returns a line for each span, below the one that it is part of and two spaces to
// the right: its service, kind and name, and behind them the values of these attributes.
// A span whose parent did not come stands at the left.
func (c *Collector) Tree(attributes ...string) string {
	all, known, below := c.Spans(), map[string]bool{}, map[string][]Span{}
	for _, s := range all {
		known[s.ID] = true
	}
	for _, s := range all {
		parent := s.Parent
		if !known[parent] {
			parent = ""
		}
		below[parent] = append(below[parent], s)
	}
	var text strings.Builder
	var write func(parent, indent string)
	write = func(parent, indent string) {
		for _, s := range below[parent] {
			text.WriteString(indent + s.Service + " " + s.Kind + " " + s.Name)
			for _, name := range attributes {
				if value, ok := s.Attributes[name]; ok {
					text.WriteString(", " + value)
				}
			}
			text.WriteString("\n")
			write(s.ID, indent+"  ")
		}
	}
	write("", "")
	return text.String()
}
