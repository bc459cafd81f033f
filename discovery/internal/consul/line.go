package consul

import (
	"context"
	"errors"
	"net/http/httptrace"
	"sync/atomic"
)

// ErrNewConnection is the cause with which a context of Line.Ask ends.
var ErrNewConnection = errors.New("the connection is not the one that the index came over")

// Line is the way to Consul of questions that it holds. Where connections are kept, an
// index counts for one that was there when it was learned. Over a later one, which
// net/http makes by itself when the old one broke, the question would wait in vain at a
// Consul that came back without its data: that the connection broke is the news.
//
// The zero value is fine. It is safe for any number of goroutines.
type Line struct {
	kept atomic.Bool // connections outlive a question
}

// Ask returns a context for one question. If the question is one to be held at an index,
// the context ends with ErrNewConnection when the index does not count.
func (l *Line) Ask(ctx context.Context, held bool) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	var connections atomic.Int32
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(conn httptrace.GotConnInfo) {
		again := connections.Add(1) > 1
		if conn.Reused {
			l.kept.Store(true)
		}
		if held && (again || !conn.Reused && l.kept.Load()) {
			cancel(ErrNewConnection)
		}
	}})
}
