package logging

import (
	"context"
	"log/slog"
	"slices"
)

// RequestIDKey is the attribute that holds the request's ID.
const RequestIDKey = "request_id"

type requestIDKey struct{}

// WithRequestID returns a context whose log lines carry the ID.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the ID that the context carries, else the empty string.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// WithContextIDs returns a handler that adds the context's request ID to each
// record, and what more tells of the context, at the top level whatever groups
// the logger has open, and passes it on to next.
func WithContextIDs(next slog.Handler, more ...func(context.Context) []slog.Attr) slog.Handler {
	return &contextHandler{more: more, root: next, next: next}
}

// contextHandler remembers what was done since the first group was opened:
// only by doing it again, after the IDs, do these stay out of the group.
type contextHandler struct {
	more []func(context.Context) []slog.Attr
	root slog.Handler                      // before the first group
	next slog.Handler                      // root with all of open applied
	open []func(slog.Handler) slog.Handler // from the first group on
}

func (h *contextHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *contextHandler) Handle(ctx context.Context, r slog.Record) error {
	var attrs []slog.Attr
	if id := RequestID(ctx); id != "" {
		attrs = append(attrs, slog.String(RequestIDKey, id))
	}
	for _, of := range h.more {
		attrs = append(attrs, of(ctx)...)
	}
	switch {
	case len(attrs) == 0:
		return h.next.Handle(ctx, r)
	case len(h.open) == 0:
		r = r.Clone()
		r.AddAttrs(attrs...)
		return h.next.Handle(ctx, r)
	}
	next := h.root.WithAttrs(attrs)
	for _, step := range h.open {
		next = step(next)
	}
	return next.Handle(ctx, r)
}

func (h *contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.with(len(h.open) > 0, func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

func (h *contextHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(true, func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h *contextHandler) with(grouped bool, step func(slog.Handler) slog.Handler) slog.Handler {
	next := step(h.next)
	if !grouped {
		return &contextHandler{more: h.more, root: next, next: next}
	}
	return &contextHandler{more: h.more, root: h.root, next: next, open: append(slices.Clip(h.open), step)}
}
