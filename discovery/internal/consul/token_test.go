package consul

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestTokenFileIsRotatedWithoutARestart(t *testing.T) {
	clean(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	agent(t, l)
	file := filepath.Join(t.TempDir(), "token")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first\n")
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", file)
	client, closeIdle, err := Open(Config{Address: l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer closeIdle()
	sent := func(want, when string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		peers, err := client.Status().PeersWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		if got := peers[3]; got != want {
			t.Errorf("%s: sent token %q; want %q", when, got, want)
		}
	}
	sent("first", "at the start")
	put("other\n") // as long as the first, within the same tick of the file system's clock
	sent("other", "after it was written anew")
	put("")
	sent("other", "while the file is empty")
	put("a b\x00c")
	sent("other", "while the file holds no token")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	sent("other", "while the file is away")
	put("third\n")
	sent("third", "after it was put back")
}

func TestTokenFileWithoutATokenIsAnErrorAtTheStart(t *testing.T) {
	clean(t)
	file := filepath.Join(t.TempDir(), "token")
	for _, text := range []string{"", " \n", "two\nlines", "nul\x00", strings.Repeat("x", maxTokenBytes+1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{TokenFile: file}); err == nil || !strings.Contains(err.Error(), "want one line of printable ASCII") || !strings.Contains(err.Error(), file) {
			t.Errorf("token file of %d bytes: got %v; want an error that names the file and what is wanted", len(text), err)
		}
	}
}
