package gateway_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The opcodes of RFC 6455, section 5.2.
const (
	opText  = 1
	opClose = 8
)

// sendFrame sends one frame; a client's is masked (section 5.3).
func sendFrame(w io.Writer, op byte, payload string, masked bool) error {
	frame := []byte{0x80 | op}
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	if len(payload) < 126 {
		frame = append(frame, bit|byte(len(payload)))
	} else {
		frame = binary.BigEndian.AppendUint16(append(frame, bit|126), uint16(len(payload)))
	}
	body := []byte(payload)
	if masked {
		mask := [4]byte{1, 2, 3, 4}
		frame = append(frame, mask[:]...)
		for n := range body {
			body[n] ^= mask[n%4]
		}
	}
	_, err := w.Write(append(frame, body...))
	return err
}

func readFrame(r io.Reader) (op byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, "", err
	}
	length := int(head[1] & 0x7f)
	if length == 126 {
		var long [2]byte
		if _, err := io.ReadFull(r, long[:]); err != nil {
			return 0, "", err
		}
		length = int(binary.BigEndian.Uint16(long[:]))
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return 0, "", err
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, "", err
	}
	for n := range body {
		body[n] ^= mask[n%4]
	}
	return head[0] & 0x0f, string(body), nil
}

// socket answers a WebSocket's opening handshake (section 4.2.2), and says
// hello in the same packet; then serve has the connection.
func socket(t *testing.T, serve func(conn net.Conn, in *bufio.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" || r.Header.Get("Sec-Websocket-Version") != "13" {
			http.Error(w, fmt.Sprint("no handshake: ", r.Header), http.StatusUpgradeRequired)
			return
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(limit))
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		_ = sendFrame(rw, opText, "hello", false)
		if err := rw.Flush(); err != nil {
			t.Error(err)
		}
		serve(conn, rw.Reader)
	}
}

// websocket makes the client's part of the handshake, and reads the hello.
func (d *door) websocket() *wire {
	d.t.Helper()
	c := d.dial()
	c.say("GET /users/feed HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: keep-alive, Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "")
	resp := c.answer(http.MethodGet)
	// The key and the answer to it are the RFC's own example.
	if resp.StatusCode != 101 || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || resp.Header.Get("X-Served-By") != "user-1" {
		d.t.Fatalf("got %s %v; want the handshake of user-1", resp.Status, resp.Header)
	}
	if op, text, err := readFrame(c.buf); op != opText || text != "hello" {
		d.t.Fatalf("got frame %d %q, %v; want the hello that came with the handshake", op, text, err)
	}
	return c
}

func TestWebSocketTalksBothWaysAndCloses(t *testing.T) {
	d := through(t, options{answerTimeout: 150 * time.Millisecond, stream: 150 * time.Millisecond}, socket(t, func(conn net.Conn, in *bufio.Reader) {
		for {
			op, payload, err := readFrame(in)
			if err != nil {
				t.Errorf("the service: %v", err)
				return
			}
			_ = sendFrame(conn, op, payload, false)
			if op == opClose {
				return
			}
		}
	}))
	c := d.websocket()
	for _, text := range []string{"one", strings.Repeat("long", 10000)} {
		time.Sleep(400 * time.Millisecond) // silence, longer than every timeout
		if err := sendFrame(c, opText, text, true); err != nil {
			t.Fatal(err)
		}
		if op, echo, err := readFrame(c.buf); op != opText || echo != text {
			t.Fatalf("got frame %d of %d bytes, %v; want the echo of %d", op, len(echo), err, len(text))
		}
	}
	if err := sendFrame(c, opClose, "\x03\xe8bye", true); err != nil {
		t.Fatal(err)
	}
	if op, reason, err := readFrame(c.buf); op != opClose || reason != "\x03\xe8bye" {
		t.Errorf("got frame %d %q, %v; want the closing handshake", op, reason, err)
	}
	c.wantEnd()
}

func TestWebSocketEndsWithEitherSide(t *testing.T) {
	ended := make(chan error, 1)
	leave := make(chan struct{})
	d := through(t, options{}, socket(t, func(_ net.Conn, in *bufio.Reader) {
		told := make(chan error, 1)
		go func() { _, _, err := readFrame(in); told <- err }()
		select {
		case err := <-told:
			ended <- err
		case <-leave: // the reader ends with the connection
		}
	}))
	c := d.websocket()
	c.Close()
	if err := await(t, "the service to learn that the client has left", ended); !errors.Is(err, io.EOF) {
		t.Errorf("the service reads %v; want the end", err)
	}
	c = d.websocket()
	close(leave)
	c.wantEnd()
}

func TestRefusedUpgradeIsAnAnswerLikeAnyOther(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	c := d.dial()
	for range 2 { // the connection goes on
		c.say("GET /users/feed HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade", "")
		if resp, body := c.whole(http.MethodGet); resp.StatusCode != http.StatusForbidden || body != "no\n" {
			t.Errorf("got %s %q; want the service's 403", resp.Status, body)
		}
	}
}
