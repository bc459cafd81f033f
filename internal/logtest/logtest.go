// Package logtest is a log for tests, which can be read while it is written.
package logtest

import (
	"strings"
	"sync"
)

// Buffer keeps what is written to it. The zero value is empty and ready.
type Buffer struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns what was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
