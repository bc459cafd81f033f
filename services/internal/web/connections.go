package web

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

const (
	// refusalTime bounds the answer to a connection over the limit.
	refusalTime = time.Second
	// maxRefusals is how many such answers may be under way; connections beyond
	// are closed without one.
	maxRefusals = 64
)

// connections counts what is open on all listeners, and refuses what is over
// the limit.
type connections struct {
	limit    int64
	edge     bool
	tls      *tls.Config // nil: plain text
	metrics  *metrics.Server
	log      *slog.Logger
	open     atomic.Int64
	refusals chan struct{} // a slot for each refusal under way
	refusing sync.WaitGroup
	told     seldom
}

func newConnections(cfg Config) *connections {
	c := &connections{
		limit: int64(cfg.Limits.MaxConnections), edge: cfg.Edge,
		metrics: cfg.Metrics, log: cfg.Log, refusals: make(chan struct{}, maxRefusals),
	}
	if cfg.TLS != nil {
		c.tls = cfg.TLS.Clone()
		c.tls.NextProtos = []string{"http/1.1"} // in which the refusal is written
	}
	return c
}

// wait waits for the refusals under way. All listeners must be closed.
func (c *connections) wait() { c.refusing.Wait() }

// Limited returns a listener whose connections count among the server's, for a
// server of another protocol on a port of its own. It must be closed before
// Shutdown.
func (s *Server) Limited(l net.Listener) net.Listener { return s.connections.listen(l) }

func (c *connections) listen(l net.Listener) net.Listener { return &listener{Listener: l, all: c} }

// listener accepts connections up to the limit. It goes on accepting beyond,
// and refuses: connections left in the kernel's backlog would wait unseen for
// as long as they like.
type listener struct {
	net.Listener
	all *connections
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.all.open.Add(1) <= l.all.limit {
			return l.all.accepted(c), nil
		}
		l.all.open.Add(-1)
		l.all.refuse(c)
	}
}

func (c *connections) accepted(conn net.Conn) net.Conn {
	if c.metrics != nil {
		c.metrics.Accepted()
	}
	release := sync.OnceFunc(func() {
		c.open.Add(-1)
		if c.metrics != nil {
			c.metrics.Closed()
		}
	})
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &tcpConn{TCPConn: tcp, release: release}
	}
	return &plainConn{Conn: conn, release: release}
}

// tcpConn keeps what net/http looks for in a TCP connection: CloseWrite and
// ReadFrom.
type tcpConn struct {
	*net.TCPConn
	release func()
}

func (c *tcpConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}

type plainConn struct {
	net.Conn
	release func()
}

func (c *plainConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// refuse answers 503 and closes the connection, in bounded time, without
// holding up Accept.
func (c *connections) refuse(conn net.Conn) {
	if c.metrics != nil {
		c.metrics.Refused()
	}
	if c.told.now() {
		c.log.Warn("connections are refused", "limit", c.limit, "remote", conn.RemoteAddr().String())
	}
	select {
	case c.refusals <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	c.refusing.Go(func() {
		defer func() { <-c.refusals }()
		defer conn.Close()
		answered := conn
		if c.tls != nil {
			// Without a handshake a client would take us for one that speaks no TLS.
			// It ends in answerRefusal's time.
			answered = tls.Server(conn, c.tls)
		}
		_ = answerRefusal(answered, c.refusal())
	})
}

// answerRefusal waits for the request to begin: an answer that comes before it
// is an error to clients (net/http's: "Unsolicited response received on idle
// HTTP channel"). A client that sends nothing is closed without one. After the
// answer it reads what is still sent: closing before would reset the
// connection, and the client would lose the answer.
func answerRefusal(conn net.Conn, answer []byte) error {
	if err := conn.SetDeadline(time.Now().Add(refusalTime)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return err
	}
	if _, err := conn.Write(answer); err != nil {
		return err
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, io.LimitReader(conn, MaxMaxHeaderBytes))
	return err
}

// refusal is the whole response, as it goes on the wire: there is no request
// to answer yet, so net/http can't write it.
func (c *connections) refusal() []byte {
	p := problem.New(http.StatusServiceUnavailable, "%d connections are open, which is the limit; come back in a second", c.limit)
	body, err := json.Marshal(p)
	if err != nil {
		body = nil // strings and an integer can't fail to encode
	}
	body = append(body, '\n')
	head := "HTTP/1.1 503 Service Unavailable\r\n" +
		"Content-Type: " + problem.ContentType + "\r\n" +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\n" +
		"Cache-Control: no-store\r\n" +
		"Retry-After: 1\r\n" +
		"Connection: close\r\n"
	if !c.edge {
		head += httpmesh.ReasonHeader + ": " + httpmesh.ReasonOverload + "\r\n"
	}
	head += "\r\n"
	return append([]byte(head), body...)
}

// seldom is for what is to be logged, and would be too often. Its zero value is
// ready.
type seldom struct{ last atomic.Int64 } // in Unix seconds

// now reports whether it is time, which is once a second.
func (s *seldom) now() bool {
	now := time.Now().Unix()
	return s.last.Swap(now) != now
}
