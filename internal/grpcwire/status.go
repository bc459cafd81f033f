package grpcwire

import (
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The codes of gRPC that mean something here
// (https://grpc.github.io/grpc/core/md_doc_statuscodes.html).
const (
	OK                = 0
	Unknown           = 2
	DeadlineExceeded  = 4
	PermissionDenied  = 7
	ResourceExhausted = 8
	Unimplemented     = 12
	Internal          = 13
	Unavailable       = 14
	Unauthenticated   = 16
)

// A status of the mesh's own has an ErrorInfo of this domain, whose reason says what
// the code alone does not.
const (
	Domain = "rollcall"
	// WrongService, with UNAVAILABLE: the call is meant for another service than the
	// one at this address. Nothing was done.
	WrongService = "WRONG_SERVICE"
	// Overload, with RESOURCE_EXHAUSTED: the instance had too much to do. Nothing was
	// done.
	Overload = "OVERLOAD"
	// Downstream, with UNAVAILABLE: another service was at fault, which was tried as
	// often as it could be.
	Downstream = "DOWNSTREAM"
)

// PushbackKey is the trailer that asks for a pause before another try (gRFC A6), as
// gRPC's metadata spells it.
const PushbackKey = "grpc-retry-pushback-ms"

// Pushback is how long the values of a PushbackKey want their reader to wait; what is
// negative, or no number, means for ever, and so is negative. said is false without a
// value.
func Pushback(values []string) (wait time.Duration, said bool) {
	if len(values) == 0 {
		return 0, false
	}
	ms, err := strconv.ParseUint(values[0], 10, 31)
	if err != nil || len(values) > 1 {
		return -1, true
	}
	return time.Duration(ms) * time.Millisecond, true
}

// Status is how a call has ended.
type Status struct {
	// Code is gRPC's.
	Code uint32
	// Message is the text, as it is escaped on the wire.
	Message string
	// Domain and Reason are those of an ErrorInfo among the details; empty: none.
	Domain, Reason string
	// Wait is how long the server wants its client to wait before it comes again, by
	// grpc-retry-pushback-ms (gRFC A6) or a RetryInfo; negative: for ever.
	Wait time.Duration
	// Waits says that the server has said so.
	Waits bool
}

// StatusOf reads a status from an answer's trailer, or from its header where that is
// all there is of it; false if there is none.
func StatusOf(h http.Header) (Status, bool) {
	said := h["Grpc-Status"]
	if len(said) == 0 {
		return Status{}, false
	}
	s := Status{Code: Unknown, Message: h.Get("Grpc-Message")}
	if code, err := strconv.ParseUint(said[0], 10, 32); err == nil {
		s.Code = uint32(code)
	}
	if s.Code == OK {
		return s, true
	}
	if details := h.Get("Grpc-Status-Details-Bin"); details != "" {
		if raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(details, "=")); err == nil {
			s.read(raw)
		}
	}
	if wait, said := Pushback(h["Grpc-Retry-Pushback-Ms"]); said {
		s.Wait, s.Waits = wait, true
	}
	return s, true
}

// read looks for the details it knows in a google.rpc.Status.
func (s *Status) read(raw []byte) {
	const statusDetails, anyType, anyValue = 3, 1, 2
	for n, value := range fields(raw) {
		if n != statusDetails {
			continue
		}
		var name string
		var detail []byte
		for n, value := range fields(value.bytes) {
			switch n {
			case anyType:
				name = string(value.bytes)
			case anyValue:
				detail = value.bytes
			}
		}
		switch name[strings.LastIndexByte(name, '/')+1:] {
		case "google.rpc.ErrorInfo":
			s.readErrorInfo(detail)
		case "google.rpc.RetryInfo":
			s.readRetryInfo(detail)
		}
	}
}

func (s *Status) readErrorInfo(raw []byte) {
	const reason, domain = 1, 2
	for n, value := range fields(raw) {
		switch n {
		case reason:
			s.Reason = string(value.bytes)
		case domain:
			s.Domain = string(value.bytes)
		}
	}
}

func (s *Status) readRetryInfo(raw []byte) {
	const delay, seconds, nanos = 1, 1, 2
	const most = 1 << 31 // seconds; more would overflow
	var whole, part uint64
	for n, value := range fields(raw) {
		if n != delay {
			continue
		}
		for n, value := range fields(value.bytes) {
			switch n {
			case seconds:
				whole = min(value.number, most)
			case nanos:
				part = min(value.number, uint64(time.Second))
			}
		}
	}
	s.Wait, s.Waits = time.Duration(whole)*time.Second+time.Duration(part), true
}

// field is a field's value in Protobuf's encoding
// (https://protobuf.dev/programming-guides/encoding).
type field struct {
	number uint64 // a varint
	bytes  []byte // length-delimited
}

// fields ranges over a message's fields, up to what it can't read.
func fields(raw []byte) func(yield func(n uint64, value field) bool) {
	return func(yield func(uint64, field) bool) {
		for len(raw) > 0 {
			key, size := binary.Uvarint(raw)
			if size <= 0 {
				return
			}
			value, length, ok := read(byte(key&7), raw[size:])
			if !ok || !yield(key>>3, value) {
				return
			}
			raw = raw[size+length:]
		}
	}
}

// read reads a value of a wire type, and returns its length.
func read(wire byte, raw []byte) (value field, length int, ok bool) {
	const varint, fixed64, delimited, fixed32 = 0, 1, 2, 5
	switch wire {
	case varint:
		value.number, length = binary.Uvarint(raw)
		return value, length, length > 0
	case fixed64:
		return value, 8, len(raw) >= 8
	case fixed32:
		return value, 4, len(raw) >= 4
	case delimited:
		n, size := binary.Uvarint(raw)
		if size <= 0 || n > uint64(len(raw)-size) {
			return value, 0, false
		}
		length = size + int(n)
		value.bytes = raw[size:length]
		return value, length, true
	}
	return value, 0, false
}
