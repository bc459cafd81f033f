package tracing

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// Client returns a trace of the mesh that makes a span for each request and one for each
// of its tries, HTTP's and gRPC's, and does what next does besides; nil means nothing.
//
// The request's span lasts until the headers of its response came, as its report does.
// It is an internal one: what leaves the process are the tries, whose spans are of the
// kind client. Each says where it went, its number, and why it was made: first, retry
// after an outcome, or beside.
func (t *Tracing) Client(next *httpmesh.Trace) *httpmesh.Trace {
	if t == nil {
		return next
	}
	var all httpmesh.Trace
	if next != nil {
		all = *next
	}
	before := all
	all.Begin = func(ctx context.Context, service, method string) context.Context {
		if before.Begin != nil {
			ctx = before.Begin(ctx, service, method)
		}
		attrs := []attribute.KeyValue{semconv.ServicePeerName(service)}
		if method != "" {
			attrs = append(attrs, operation(method))
		}
		ctx, _ = t.tracer.Start(ctx, name(method, service), trace.WithAttributes(attrs...))
		return ctx
	}
	all.Done = func(ctx context.Context, r *httpmesh.Report) {
		span := trace.SpanFromContext(ctx)
		span.SetAttributes(outcomeKey.String(r.Outcome.String()), triesKey.Int(len(r.Tries)))
		if r.OverBudget {
			span.SetAttributes(overBudgetKey.Bool(true))
		}
		fail(span, r.Outcome, nil)
		if before.Done != nil {
			before.Done(ctx, r)
		}
		span.End()
	}
	all.Try = func(ctx context.Context, s httpmesh.TryStart) context.Context {
		if before.Try != nil {
			ctx = before.Try(ctx, s)
		}
		ctx, _ = t.tracer.Start(ctx, "try "+name(s.Method, s.Service), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(about(s)...))
		words.Inject(ctx, setter(s.Set))
		return ctx
	}
	all.Tried = func(ctx context.Context, try httpmesh.Try) {
		span := trace.SpanFromContext(ctx)
		span.SetAttributes(outcomeKey.String(try.Outcome.String()))
		if try.Status != 0 {
			span.SetAttributes(semconv.HTTPResponseStatusCode(try.Status))
		}
		fail(span, try.Outcome, try.Err)
		if before.Tried != nil {
			before.Tried(ctx, try)
		}
		span.End()
	}
	return &all
}

// name is that of a request's span: of gRPC the method, of HTTP the method and where it
// goes, for a path would be a name for each. A call of kitmesh has no method.
func name(method, service string) string {
	if method == "" {
		return service
	}
	if rpc, ok := strings.CutPrefix(method, "/"); ok {
		return rpc
	}
	return bounded(method) + " " + service
}

func operation(method string) attribute.KeyValue {
	if rpc, ok := strings.CutPrefix(method, "/"); ok {
		return semconv.RPCMethod(rpc)
	}
	return semconv.HTTPRequestMethodKey.String(bounded(method))
}

// about is what is known of a try when it begins.
func about(s httpmesh.TryStart) []attribute.KeyValue {
	mode := "normal"
	if s.Instance.State == catalog.StateCritical {
		mode = "panic"
	}
	return []attribute.KeyValue{
		semconv.ServicePeerName(s.Service),
		operation(s.Method),
		semconv.ServerAddress(s.Instance.Host),
		semconv.ServerPort(s.Instance.Port),
		instanceKey.String(s.Instance.ID),
		nodeKey.String(s.Instance.Node),
		numberKey.Int(s.Number),
		reasonKey.String(reason(s)),
		modeKey.String(mode),
	}
}

// reason says why a try was made.
func reason(s httpmesh.TryStart) string {
	switch {
	case s.After != outcome.None:
		return "retry after " + s.After.String()
	case s.Beside:
		return "beside"
	}
	return "first"
}

// fail says in a span that what it is about has failed. A try that another one was faster
// than has not.
func fail(span trace.Span, code outcome.Code, err error) {
	if code == outcome.OK || code == outcome.Outrun {
		return
	}
	text := code.String()
	span.SetAttributes(semconv.ErrorTypeKey.String(text))
	if err != nil {
		text += ": " + err.Error()
	}
	span.SetStatus(codes.Error, text)
}

// setter is what a try sends, as a carrier that can only be written.
type setter func(name, value string)

var _ propagation.TextMapCarrier = setter(nil)

// Get has nothing to tell.
func (setter) Get(string) string { return "" }

// Set puts a header into what is sent.
func (s setter) Set(name, value string) { s(name, value) }

// Keys has nothing to tell.
func (setter) Keys() []string { return nil }
