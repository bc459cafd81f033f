package overload

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// shedUnread sheds a request whose body was not read. net/http would wait for
// it before it sends anything, unless it is told that a body may come later.
func shedUnread(w http.ResponseWriter, r *http.Request, most int64) {
	control := http.NewResponseController(w)
	if r.ProtoMajor != 1 || r.Header.Get("Expect") != "" || control.EnableFullDuplex() != nil {
		problem.Write(w, r, shed()) // at once, and the body is never asked for
		return
	}
	if r.ContentLength < 0 || r.ContentLength > most {
		w.Header().Set("Connection", "close")
		problem.Write(w, r, shed())
		return
	}
	problem.Write(w, r, shed())
	_ = control.Flush()
	// It is nearly always there already. To read it keeps the connection, which
	// the sender would have to dial anew just when there is too much to do.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's own way to break a connection off
	}
}

// ahead is a body that was read before: what came of it, and how it ended.
type ahead struct {
	read *bytes.Reader
	end  error // io.EOF, or why there is no more
	of   io.Closer
}

// readAhead reads the request's body, most bytes of it at most, and returns what
// the handler is to read instead: the same bytes and the same end, without any
// waiting. That of a larger body is an *http.MaxBytesError; one that says so
// beforehand is not read at all.
func readAhead(r *http.Request, most int64) io.ReadCloser {
	if r.ContentLength > most {
		return &ahead{read: bytes.NewReader(nil), end: &http.MaxBytesError{Limit: most}, of: r.Body}
	}
	var read bytes.Buffer // grows by what arrives
	_, err := read.ReadFrom(io.LimitReader(r.Body, most+1))
	switch {
	case int64(read.Len()) > most:
		err = &http.MaxBytesError{Limit: most}
		read.Truncate(int(most))
	case err == nil:
		err = io.EOF
	}
	return &ahead{read: bytes.NewReader(read.Bytes()), end: err, of: r.Body}
}

func (a *ahead) Read(p []byte) (int, error) {
	n, err := a.read.Read(p)
	if errors.Is(err, io.EOF) {
		err = a.end
	}
	return n, err
}

func (a *ahead) Close() error { return a.of.Close() }
