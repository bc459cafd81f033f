package otlp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestVariablesSayWhetherSpansAreSent(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318"
	for _, c := range []struct {
		set  string
		want string // the protocol, or a part of the error; empty: it is off
	}{
		{"", ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=", ""},
		{endpoint, "http/protobuf"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://collector/v1/traces", "http/protobuf"},
		{"OTEL_TRACES_EXPORTER=otlp", "http/protobuf"},
		{endpoint + " OTEL_TRACES_EXPORTER=none", ""},
		{endpoint + " OTEL_SDK_DISABLED=TRUE", ""},
		{endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "grpc"},
		{endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json", "http/json"},
		{endpoint + " OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=0.1", "http/protobuf"},
		{endpoint + " OTEL_TRACES_SAMPLER=always_off OTEL_TRACES_SAMPLER_ARG=unused", "http/protobuf"},

		{"OTEL_TRACES_EXPORTER=zipkin", `OTEL_TRACES_EXPORTER is "zipkin"; want otlp or none`},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317", `OTEL_EXPORTER_OTLP_ENDPOINT is "collector:4317"; want a URL`},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://", `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is "http://"; want a URL`},
		{endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=udp", `OTEL_EXPORTER_OTLP_PROTOCOL is "udp"; want one of grpc`},
		{endpoint + " OTEL_TRACES_SAMPLER=some", `OTEL_TRACES_SAMPLER is "some"; want one of always_on`},
		{endpoint + " OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=10%", `OTEL_TRACES_SAMPLER_ARG is "10%"; want a number from 0 to 1`},
		{endpoint + " OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=NaN", `OTEL_TRACES_SAMPLER_ARG is "NaN"; want a number from 0 to 1`},
	} {
		t.Run(c.set, func(t *testing.T) {
			set := map[string]string{}
			for pair := range strings.FieldsSeq(c.set) {
				name, value, _ := strings.Cut(pair, "=")
				set[name] = value
			}
			protocol, on, err := variables(func(name string) string { return set[name] }).asked()
			switch {
			case strings.Contains(c.want, "want"):
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got the error %v; want %q", err, c.want)
				}
			case err != nil || protocol != c.want || on != (c.want != ""):
				t.Errorf("got %q, on %v, %v; want %q", protocol, on, err, c.want)
			}
		})
	}
}

func TestProviderThatIsOffMakesNoSpan(t *testing.T) {
	p, err := Open(t.Context(), Config{Service: "order"})
	if err != nil || p.Tracing() != nil {
		t.Errorf("got %v, %v; want nothing", p.Tracing(), err)
	}
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), Config{}); err == nil {
		t.Error("a service without a name is taken; want an error")
	}
}

// failing is an exporter to a collector that is away.
type failing struct{ sdk.SpanExporter }

func (failing) ExportSpans(context.Context, []sdk.ReadOnlySpan) error {
	return errors.New("connection refused")
}

func TestLostSpansAreToldOfOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		e := &exporter{SpanExporter: failing{}, sending: t.Context(), log: slog.New(slog.NewTextHandler(&lines, nil))}
		for range 24 { // each 5 s, for two minutes
			time.Sleep(5 * time.Second)
			if err := e.ExportSpans(t.Context(), tracetest.SpanStubs{{}, {}}.Snapshots()); err != nil {
				t.Error(err)
			}
		}
		got := lines.String()
		if strings.Count(got, "\n") != 2 || !strings.Contains(got, "spans=2 ") || !strings.Contains(got, "spans=24 ") || !strings.Contains(got, "connection refused") {
			t.Errorf("got\n%swant two lines, of 2 and of 24 spans", got)
		}
	})
}

// patient is an exporter to a collector that says nothing.
type patient struct{ sdk.SpanExporter }

func (patient) ExportSpans(ctx context.Context, _ []sdk.ReadOnlySpan) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestNothingIsSentAfterTheShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sending, cut := context.WithCancel(t.Context())
		e := &exporter{SpanExporter: patient{}, sending: sending, log: slog.New(slog.DiscardHandler)}
		time.AfterFunc(time.Second, cut)
		began := time.Now()
		if err := e.ExportSpans(t.Context(), tracetest.SpanStubs{{}}.Snapshots()); err != nil || time.Since(began) != time.Second {
			t.Errorf("got %v after %v; want an end with the provider's", err, time.Since(began))
		}
	})
}

func TestShutdownWaitsNoLongerThanItsContextForACollectorThatIsSilent(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, and nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+silent.Addr().String())
	p, err := Open(t.Context(), Config{Service: "order", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	server := p.Tracing().Server()
	server.End(server.Begin(t.Context(), r), r, http.StatusOK)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v; want the context's end, and not the exporter's 10 s", err)
	}
	server.End(server.Begin(t.Context(), r), r, http.StatusOK) // what goes on has no span, and no fault
}
