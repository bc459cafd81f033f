// Package otlp sends spans to a collector, by OTLP, as the standard variables of
// OpenTelemetry say.
//
//	spans, err := otlp.Open(ctx, otlp.Config{Service: "order", Version: "1.4.0"})
//	defer spans.Shutdown(ctx)
//	t := spans.Tracing()
//
// It is off, and Tracing is nil, unless OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, or OTEL_TRACES_EXPORTER is otlp; with
// OTEL_TRACES_EXPORTER=none or OTEL_SDK_DISABLED=true it is off all the same. An empty
// variable counts as one that is not set.
//
// Of the others these hold: OTEL_EXPORTER_OTLP_PROTOCOL (http/protobuf, which is the
// default, http/json, grpc), _HEADERS, _TIMEOUT, _COMPRESSION, _INSECURE and those of
// certificates, each also as OTEL_EXPORTER_OTLP_TRACES_…; OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and _ARG, and the limits OTEL_BSP_… and
// OTEL_SPAN_…. OTEL_PROPAGATORS is not read: it is always tracecontext and baggage.
//
// Spans are kept in memory, 2048 of them at most, and sent every 5 s or when 512 are
// there. What can't be sent is lost, and a line in the log says so, one a minute at most;
// no request waits for a collector.
package otlp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/rollcall-mesh/rollcall/observability/tracing"
)

// Config says whose spans they are.
type Config struct {
	// Service is their service.name, unless OTEL_SERVICE_NAME or
	// OTEL_RESOURCE_ATTRIBUTES says another. Required.
	Service string
	// Version is their service.version. Empty means none.
	Version string
	// Log is told of spans that are lost. nil means slog.Default().
	Log *slog.Logger
}

// Provider sends the spans of a process. Use Open, and Shutdown at the end.
type Provider struct {
	sdk *sdk.TracerProvider // nil: it is off
	cut context.CancelFunc  // ends what is being sent
}

// Open returns what sends the spans, or nothing if the variables don't ask for it. It
// connects to nothing yet. An error names the variable that is wrong, its value, and what
// is wanted.
func Open(ctx context.Context, cfg Config) (*Provider, error) {
	if cfg.Service == "" {
		return nil, errors.New("otlp: Service is empty; want the name of the service")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	ctx = context.WithoutCancel(ctx) // nothing here waits, and the spans outlive it
	protocol, on, err := variables(os.Getenv).asked()
	if err != nil || !on {
		return &Provider{}, err
	}
	own := []attribute.KeyValue{semconv.ServiceName(cfg.Service)}
	if cfg.Version != "" {
		own = append(own, semconv.ServiceVersion(cfg.Version))
	}
	about, err := resource.New(ctx, resource.WithAttributes(own...), resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return &Provider{}, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES is %q; want key=value, with commas between: %w", os.Getenv("OTEL_RESOURCE_ATTRIBUTES"), err)
	}
	var to *otlptrace.Exporter
	if protocol == grpcProtocol {
		to, err = otlptracegrpc.New(ctx)
	} else {
		to, err = otlptracehttp.New(ctx)
	}
	if err != nil {
		return &Provider{}, fmt.Errorf("otlp: %w", err)
	}
	sending, cut := context.WithCancel(ctx)
	batches := sdk.WithBatcher(&exporter{SpanExporter: to, sending: sending, log: cfg.Log})
	return &Provider{sdk: sdk.NewTracerProvider(sdk.WithResource(about), batches), cut: cut}, nil
}

// Tracing returns what makes the spans; nil if it is off.
func (p *Provider) Tracing() *tracing.Tracing {
	if p.sdk == nil {
		return nil
	}
	return tracing.New(p.sdk)
}

// Shutdown sends what is kept, and ends. If ctx ends first, what is left is lost, and the
// error says why. Doing so again does nothing.
func (p *Provider) Shutdown(ctx context.Context) error {
	if p.sdk == nil {
		return nil
	}
	// The SDK returns when ctx ends, and would go on to send.
	defer p.cut()
	if err := p.sdk.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

const grpcProtocol = "grpc"

// The words that the variables take.
var (
	protocols = []string{grpcProtocol, "http/protobuf", "http/json"}
	samplers  = []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
)

// variables are the environment.
type variables func(name string) string

// first returns the first of some variables that is set: its name and its value.
func (get variables) first(names ...string) (name, value string) {
	for _, name := range names {
		if value := strings.TrimSpace(get(name)); value != "" {
			return name, value
		}
	}
	return "", ""
}

// asked returns whether spans are to be sent, and by which protocol. The SDK takes what
// it can't read for its default and says so to nobody, so it is checked here.
func (get variables) asked() (protocol string, on bool, err error) {
	where, endpoint := get.first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	_, off := get.first("OTEL_SDK_DISABLED")
	_, kind := get.first("OTEL_TRACES_EXPORTER")
	switch {
	case strings.EqualFold(off, "true"), kind == "none", kind == "" && endpoint == "":
		return "", false, nil
	case kind != "" && kind != "otlp":
		return "", false, wrong("OTEL_TRACES_EXPORTER", kind, "otlp or none")
	}
	if u, err := url.Parse(endpoint); endpoint != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return "", false, wrong(where, endpoint, "a URL such as http://collector:4318")
	}
	name, protocol := get.first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	if err := oneOf(name, protocol, protocols); err != nil {
		return "", false, err
	}
	if err := get.checkSampler(); err != nil {
		return "", false, err
	}
	return cmp.Or(protocol, "http/protobuf"), true, nil
}

func (get variables) checkSampler() error {
	name, sampler := get.first("OTEL_TRACES_SAMPLER")
	if err := oneOf(name, strings.ToLower(sampler), samplers); err != nil {
		return err
	}
	name, ratio := get.first("OTEL_TRACES_SAMPLER_ARG")
	if ratio == "" || !strings.HasSuffix(strings.ToLower(sampler), "ratio") {
		return nil
	}
	if share, err := strconv.ParseFloat(ratio, 64); err != nil || math.IsNaN(share) || share < 0 || share > 1 {
		return wrong(name, ratio, "a number from 0 to 1")
	}
	return nil
}

// oneOf checks a variable that takes some words; one that is not set is right.
func oneOf(name, value string, words []string) error {
	if value == "" || slices.Contains(words, value) {
		return nil
	}
	return wrong(name, value, "one of "+strings.Join(words, ", "))
}

func wrong(name, value, want string) error {
	return fmt.Errorf("%s is %q; want %s", name, value, want)
}

// tellEvery is how often a loss is told of at most.
const tellEvery = time.Minute

// exporter tells the log of what is lost. The SDK exports one batch at a time.
type exporter struct {
	sdk.SpanExporter
	sending context.Context //nolint:containedctx // it ends with the provider
	log     *slog.Logger
	told    time.Time
	lost    int // since then
}

// ExportSpans sends the spans. A loss is told here, and not to OpenTelemetry's global
// handler of errors, which writes to standard error by itself.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.sending, cancel)() //nolint:contextcheck // it is the other end that there is
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	e.lost += len(spans)
	if now := time.Now(); now.Sub(e.told) >= tellEvery {
		e.log.WarnContext(ctx, "spans were lost", "spans", e.lost, "error", err)
		e.told, e.lost = now, 0
	}
	return nil
}
