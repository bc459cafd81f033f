package kitmesh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kit/kit/endpoint"
	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
)

// breaking starts instances that read each request, note it, and close the
// connection without an answer; the one that is asked as the last answers.
func breaking(t *testing.T, count, answers int) (mesh *discovery.Mesh, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	instances := make([]catalog.Instance, 0, count)
	for n := range count {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if int(asked.Add(1)) < answers {
				panic(http.ErrAbortHandler)
			}
			fmt.Fprintf(w, `{"by":"%s, with a key: %v"}`, bytes.TrimSpace(body), r.Header.Get("Idempotency-Key") != "")
		}))
		t.Cleanup(server.Close)
		instances = append(instances, catalog.Instance{ID: fmt.Sprint("user-", n), Host: "127.0.0.1", Port: server.Listener.Addr().(*net.TCPAddr).Port})
	}
	return meshOver(t, "user", instances...), asked
}

// asIs is a go-kit client as it was before rollcall, but for its HTTP client.
func asIs(t *testing.T, mesh *discovery.Mesh, method string, options ...kithttp.ClientOption) endpoint.Endpoint {
	t.Helper()
	u, err := url.Parse("http://user/")
	if err != nil {
		t.Fatal(err)
	}
	options = append(options, kithttp.SetClient(mesh.Client()))
	return kithttp.NewClient(method, u, kithttp.EncodeJSONRequest, who, options...).Endpoint()
}

func TestNothingIsRepeatedThatIsNotDeclared(t *testing.T) {
	for _, c := range []struct {
		name, method string
		options      []kithttp.ClientOption
		asked        int32
		want         string
	}{
		{"a POST", "POST", nil, 1, ""},
		{"a PUT", "PUT", nil, 1, ""},
		{"a POST that is declared", "POST", []kithttp.ClientOption{kithttp.ClientBefore(kitmesh.Repeatable)}, 3, "7, with a key: true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mesh, asked := breaking(t, 3, 3)
			got, err := asIs(t, mesh, c.method, c.options...)(within(t), 7)
			if asked.Load() != c.asked || (err == nil) != (c.want != "") || err == nil && got != c.want {
				t.Errorf("asked %d times, got %v, %v; want %d times, and %q", asked.Load(), got, err, c.asked, c.want)
			}
		})
	}
}

func TestRetryBoundsTheTriesOfAnEndpoint(t *testing.T) {
	for _, c := range []struct{ max, asked int32 }{{0, 1}, {1, 1}, {2, 2}, {3, 3}, {5, 5}} {
		mesh, asked := breaking(t, 5, 6)
		call := kitmesh.Retry(int(c.max), patience)(asIs(t, mesh, http.MethodPost, kithttp.ClientBefore(kitmesh.Repeatable)))
		if got, err := call(within(t), 7); err == nil || asked.Load() != c.asked {
			t.Errorf("max %d: asked %d times, got %v, %v; want %d times, and an error", c.max, asked.Load(), got, err, c.asked)
		}
	}
}

func TestRetryBoundsTheTimeOfAllTriesTogether(t *testing.T) {
	mesh := meshOver(t, "user")
	timed := func(timeout time.Duration) (left time.Duration, limited bool) {
		_, err := kitmesh.Retry(3, timeout)(func(ctx context.Context, _ any) (any, error) {
			limit, ok := ctx.Deadline()
			left, limited = time.Until(limit), ok
			return nil, nil
		})(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return left, limited
	}
	if left, limited := timed(time.Minute); !limited || left > time.Minute || left < 50*time.Second {
		t.Errorf("got %v; want about a minute", left)
	}
	if left, limited := timed(0); limited {
		t.Errorf("got %v; want none but the context's", left)
	}
	if _, err := kitmesh.Retry(3, time.Second)(asIs(t, mesh, http.MethodGet))(within(t), 7); !errors.Is(err, catalog.ErrNoInstance) {
		t.Errorf("got %v; want the error as it is", err)
	}
}

func TestRepeatableKeepsWhatTheRequestHas(t *testing.T) {
	request := func(body io.Reader) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://user/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if body != nil {
			r.Body = io.NopCloser(body) // as go-kit's encoders do
		}
		return r
	}
	read := func(r *http.Request) string {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}

	small := request(strings.NewReader("a body"))
	kitmesh.Repeatable(t.Context(), small)
	again, err := small.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	second, _ := io.ReadAll(again)
	if first := read(small); first != "a body" || string(second) != first || small.ContentLength != 6 || small.Header.Get("Idempotency-Key") == "" {
		t.Errorf("got %q, again %q, of %d bytes, with the key %q; want the body twice", first, second, small.ContentLength, small.Header.Get("Idempotency-Key"))
	}

	large := strings.Repeat("x", 1<<20+10)
	big := request(strings.NewReader(large))
	kitmesh.Repeatable(t.Context(), big)
	if big.GetBody != nil || read(big) != large {
		t.Error("a body of more than 1 MiB was kept, or changed")
	}

	keyed := request(nil)
	keyed.Header.Set("Idempotency-Key", "mine")
	kitmesh.Repeatable(t.Context(), keyed)
	if keyed.Header.Get("Idempotency-Key") != "mine" || keyed.Body != nil {
		t.Errorf("got the key %q; want it as it was", keyed.Header.Get("Idempotency-Key"))
	}

	broken := request(io.MultiReader(strings.NewReader("a bo"), failing{}))
	kitmesh.Repeatable(t.Context(), broken)
	if b, err := io.ReadAll(broken.Body); string(b) != "a bo" || !errors.Is(err, errBody) || broken.GetBody != nil {
		t.Errorf("got %q, %v; want what there was, and the error", b, err)
	}
}

var errBody = errors.New("the body broke")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBody }
