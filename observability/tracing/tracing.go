// Package tracing makes spans of OpenTelemetry: for each request that is served, each
// request through the mesh, each of its tries, and what else a program says.
//
//	spans, err := otlp.Open(ctx, otlp.Config{Service: "order"}) // by the OTEL_* variables
//	defer spans.Shutdown(ctx)
//	t := spans.Tracing()
//	mesh, err := discovery.Open(ctx, discovery.Config{Trace: &discovery.Trace{HTTP: t.Client(nil)}})
//	server := &http.Server{Handler: t.Server().Handler(mux)}
//
// The context of a trace comes and goes in the headers of W3C: traceparent, tracestate
// and baggage; by gRPC, in the metadata of these names. What a sender says is believed
// if it is well formed, as its request ID is. Each try has a span and sends that span's
// context, so that the span of the instance which served it is below it.
//
// A nil *[Tracing] is one that is off: it makes no span, and costs nothing. Everything
// here may be used by any number of goroutines. No attribute has a query, a body, or a
// header's value but the request ID.
package tracing

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// scope is the name by which the spans say who has made them.
const scope = "github.com/rollcall-mesh/rollcall/observability/tracing"

// The attributes that no convention of OpenTelemetry has.
const (
	requestIDKey  = attribute.Key("rollcall.request_id")
	outcomeKey    = attribute.Key("rollcall.outcome")
	triesKey      = attribute.Key("rollcall.tries")
	overBudgetKey = attribute.Key("rollcall.over_budget")
	instanceKey   = attribute.Key("rollcall.instance.id")
	nodeKey       = attribute.Key("rollcall.instance.node")
	numberKey     = attribute.Key("rollcall.try.number")
	reasonKey     = attribute.Key("rollcall.try.reason")
	modeKey       = attribute.Key("rollcall.pick.mode")
)

// RequestID is the attribute of a server's span that holds the request's ID, as its lines
// in the log have it.
func RequestID(id string) attribute.KeyValue { return requestIDKey.String(id) }

// words are what goes from one process to the next.
var words = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})

// Tracing makes the spans of one process. Use New; nil makes none.
type Tracing struct{ tracer trace.Tracer }

// New returns what makes spans by the provider; nil means none, and returns nil.
func New(provider trace.TracerProvider) *Tracing {
	if provider == nil {
		return nil
	}
	return &Tracing{tracer: provider.Tracer(scope)}
}

// Receive begins the span of a request that has come in, below the one that its carrier
// names, and returns the context that it goes on with. It is for servers that this
// package does not know, which end the span themselves. t must not be nil.
func (t *Tracing) Receive(ctx context.Context, carrier propagation.TextMapCarrier, name string, attrs ...attribute.KeyValue) context.Context {
	ctx, _ = t.tracer.Start(words.Extract(ctx, carrier), name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attrs...))
	return ctx
}

// Start begins a span below the one of the context, and returns what ends it: an error
// is said in the span. Where the context has no span none is made, at no cost.
func Start(ctx context.Context, name string) (in context.Context, end func(error)) {
	above := trace.SpanFromContext(ctx)
	if !above.IsRecording() {
		return ctx, nothing
	}
	in, span := above.TracerProvider().Tracer(scope).Start(ctx, name)
	return in, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

func nothing(error) {}

// LogAttrs returns the IDs of the context's span, for its lines in the log: trace_id
// and span_id; none if it has no span. See logging.Config.
func LogAttrs(ctx context.Context) []slog.Attr {
	at := trace.SpanContextFromContext(ctx)
	if !at.IsValid() {
		return nil
	}
	return []slog.Attr{slog.String("trace_id", at.TraceID().String()), slog.String("span_id", at.SpanID().String())}
}

// Exemplar returns the labels that lead from a latency to its trace: the trace's ID,
// if the trace is kept. See metrics.Config.
func Exemplar(ctx context.Context) map[string]string {
	at := trace.SpanContextFromContext(ctx)
	if !at.IsSampled() {
		return nil
	}
	return map[string]string{"trace_id": at.TraceID().String()}
}
