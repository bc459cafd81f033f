package grpcmesh

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

const (
	// maxKept and maxKeptBytes bound what a stream keeps of what it sent, to send it
	// again before the first answer; with more it is sent once.
	maxKept      = 64
	maxKeptBytes = 256 << 10
)

// stream is a stream as its caller has it. Until its first message has come, what was
// sent is kept, so that it can be opened again elsewhere.
type stream struct {
	call *call

	// sending is held to send, which may wait for the other side to read, and to open
	// the stream again: what it fails for has ended the sending.
	sending sync.Mutex

	mu      sync.Mutex // guards what follows; taken after sending
	current *attempt
	begun   bool // it is not opened again
	sent    []any
	bytes   int
	closed  bool // CloseSend was called
}

// stream is the interceptor of streams.
func (c *client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	x := c.call(ctx, method, cc, opts)
	x.desc, x.streamer = desc, streamer
	x.stream = &stream{call: x}
	a, won, code, err := x.Run()
	if err := x.result(a, won, code, err); err != nil {
		return nil, err
	}
	x.stream.current = a
	a.flow.watch()
	return x.stream, nil
}

// open opens a try's stream, and sends what was sent on those before.
func (x *call) open(a *attempt) error {
	inner, err := x.streamer(a.ctx, x.desc, x.cc, x.method, x.opts...)
	if err != nil {
		return err
	}
	a.stream, a.flow = inner, newFlow(a)
	x.stream.mu.Lock()
	sent, closed := x.stream.sent, x.stream.closed
	x.stream.mu.Unlock()
	for _, m := range sent {
		if err := inner.SendMsg(m); err != nil && !errors.Is(err, io.EOF) { // which the first RecvMsg explains
			return err
		}
	}
	if closed {
		return inner.CloseSend()
	}
	return nil
}

// Context is that of the stream which is open now.
func (s *stream) Context() context.Context { return s.now().stream.Context() }

// Trailer is that of the last stream.
func (s *stream) Trailer() metadata.MD { return s.now().stream.Trailer() }

func (s *stream) now() *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Header waits for the header. One that came is a beginning; one that never will may
// be another stream's.
func (s *stream) Header() (metadata.MD, error) {
	for {
		a := s.now()
		md, err := a.stream.Header()
		if md != nil {
			s.begin()
			return md, err
		}
		if err == nil {
			if err = a.stream.RecvMsg(new(emptypb.Empty)); err == nil || errors.Is(err, io.EOF) {
				return nil, nil
			}
		}
		if again, err := s.again(a, err); !again {
			return nil, err
		}
	}
}

// begin keeps nothing any more.
func (s *stream) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun, s.sent = true, nil
}

// SendMsg sends a message. The server's end of a stream of which nothing came is the
// next one's beginning.
func (s *stream) SendMsg(m any) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	a, begun := s.keep(m)
	err := a.stream.SendMsg(m)
	a.flow.move()
	if begun || !errors.Is(err, io.EOF) {
		return err
	}
	// Without headers there is no message that could be missed by looking why.
	if md, headErr := a.stream.Header(); md != nil || headErr != nil {
		return err
	}
	why := a.stream.RecvMsg(new(emptypb.Empty))
	if why == nil || errors.Is(why, io.EOF) || s.reopen(a, why) != nil {
		return err // the caller's RecvMsg says why
	}
	return nil // it was sent with the others
}

// keep notes a message that may be sent again, unless the stream has begun, and
// returns the try to send it on.
func (s *stream) keep(m any) (a *attempt, begun bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return s.current, true
	}
	if p, ok := m.(proto.Message); ok {
		s.bytes += proto.Size(p)
	} else {
		s.bytes = maxKeptBytes + 1 // of unknown size
	}
	if s.sent = append(s.sent, m); len(s.sent) > maxKept || s.bytes > maxKeptBytes {
		s.begun, s.sent = true, nil
	}
	return s.current, s.begun
}

// CloseSend ends what is sent.
func (s *stream) CloseSend() error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.now().stream.CloseSend()
}

// RecvMsg receives a message.
func (s *stream) RecvMsg(m any) error {
	for {
		a := s.now()
		err := a.stream.RecvMsg(m)
		if err == nil {
			if a.flow.received() {
				s.begin()
				s.call.use(a)
				s.call.tell(outcome.OK)
			}
			if !s.call.desc.ServerStreams {
				a.over(nil)
			}
			return nil
		}
		if errors.Is(err, io.EOF) {
			a.over(nil)
			return err
		}
		if again, err := s.again(a, err); !again {
			return err
		}
	}
}

// again opens the stream once more after an error, if nothing of it has come and the
// rules allow it, and returns what the caller gets if not.
func (s *stream) again(a *attempt, err error) (bool, error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.now() != a {
		return true, nil // SendMsg was first
	}
	failed := s.reopen(a, err)
	if failed == nil {
		return true, nil
	}
	if failed.Code == outcome.OK { // a service's own word
		s.call.tell(outcome.OK)
		s.call.end(failed.err)
		return false, failed.err
	}
	return false, s.call.fail(failed, failed.Code, failed.err)
}

// reopen ends a try by its error, and makes another; it returns the one that has
// failed for good, nil if the stream is open. Sending is held.
func (s *stream) reopen(a *attempt, err error) (failed *attempt) {
	a.streamEnded(err)
	s.mu.Lock()
	begun := s.begun
	s.mu.Unlock()
	if begun {
		return a
	}
	next, won, again := s.call.Rerun(a)
	switch {
	case !again || next == nil:
		return a
	case !won || next.err != nil:
		return next
	}
	s.mu.Lock()
	s.current = next
	s.mu.Unlock()
	next.flow.watch()
	return nil
}

// streamEnded ends a try whose stream was made; only the first call counts, and the
// others wait for it.
func (a *attempt) streamEnded(err error) {
	a.flow.once.Do(func() {
		a.err = err
		a.Code, a.Final = a.judge(err, false)
		if a.flow.messages.Load() && err != nil && a.Code.Proves() >= outcome.Bad {
			a.Code = outcome.BodyBroken
		}
		a.finish(time.Since(a.Start))
	})
}

// over ends a stream that came to its end, or that its caller has left.
func (a *attempt) over(err error) {
	a.streamEnded(err)
	if err == nil {
		a.call.use(a)
	}
	a.call.tell(a.Code)
	a.call.end(err)
}
