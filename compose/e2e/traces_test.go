package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/modfile"

	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

func TestOverlayTracesSendsTheSpansOfAllServicesToJaeger(t *testing.T) {
	p := project(t, nil, "compose/with/traces.yaml")
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		to := s.Environment["OTEL_EXPORTER_OTLP_ENDPOINT"]
		if got := to != nil && *to == "http://jaeger:4317"; got != ours(s) {
			t.Errorf("%s sends spans to Jaeger: %v; want those of our services", name, got)
		}
	}
	want := published(project(t, nil))
	want["jaeger 127.0.0.1:16686->16686/tcp"] = true
	if d := cmp.Diff(want, published(p)); d != "" {
		t.Errorf("published ports (-want +got):\n%s", d)
	}
	jaeger := p.Services["jaeger"]
	if !jaeger.ReadOnly || jaeger.User != "10001:10001" || !slices.Equal(jaeger.CapDrop, []string{"ALL"}) || jaeger.Deploy == nil || jaeger.Deploy.Resources.Limits == nil {
		t.Errorf("Jaeger runs with %+v; want it without rights and with limits", jaeger)
	}

	const path = "compose/tools/jaeger/go.mod"
	b, err := os.ReadFile(filepath.Join(root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse(path, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if r.Mod.Path == "github.com/jaegertracing/jaeger" && jaeger.Image != "jaegertracing/all-in-one:"+strings.TrimPrefix(r.Mod.Version, "v") {
			t.Errorf("the image is %s, and %s has %s; want one version", jaeger.Image, path, r.Mod.Version)
		}
	}
}

// trace is a trace as Jaeger's API tells it.
type trace struct {
	Spans []struct {
		SpanID        string
		OperationName string
		ProcessID     string
		References    []struct{ RefType, SpanID string }
		Tags          []struct {
			Key   string
			Value any
		}
	}
	Processes map[string]struct{ ServiceName string }
}

// tag returns the values that a tag has in the trace's spans.
func (tr trace) tag(key string) (values []string) {
	for _, s := range tr.Spans {
		for _, tag := range s.Tags {
			if tag.Key == key {
				values = append(values, fmt.Sprint(tag.Value))
			}
		}
	}
	return values
}

// services are those that have a span in the trace.
func (tr trace) services() []string {
	var names []string
	for _, s := range tr.Spans {
		names = append(names, tr.Processes[s.ProcessID].ServiceName)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// loose are the spans that are below none of the trace's, nor below the given one.
func (tr trace) loose(top string) (names []string) {
	known := map[string]bool{top: true}
	for _, s := range tr.Spans {
		known[s.SpanID] = true
	}
	for _, s := range tr.Spans {
		if len(s.References) != 1 || !known[s.References[0].SpanID] {
			names = append(names, s.OperationName)
		}
	}
	return names
}

// traced is a request of the test: the IDs of the trace that it began.
type traced struct{ trace, span string }

func newTraced() traced {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // it never fails
	return traced{hex.EncodeToString(b[:16]), hex.EncodeToString(b[16:])}
}

// jaeger returns a trace that Jaeger has.
func (m *mesh) jaeger(ctx context.Context, at, id string) (trace, error) {
	var answer struct{ Data []trace }
	if err := m.getJSON(ctx, at+"/api/traces/"+id, &answer); err != nil {
		return trace{}, err
	}
	if len(answer.Data) != 1 {
		return trace{}, fmt.Errorf("%d traces are %s; want one", len(answer.Data), id)
	}
	return answer.Data[0], nil
}

func testOneRequestIsOneTraceInJaegerAndASlowBucketLeadsToIt(t *testing.T, m *mesh) {
	port, err := fleet.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	up := func(ctx context.Context, with string) {
		t.Helper()
		r, err := m.Run(ctx, "make", "--no-print-directory", "up", "WITH="+with, fmt.Sprintf("ROLLCALL_JAEGER_PORT=%d", port))
		if err != nil || r.Code != 0 {
			t.Fatalf("make up WITH=%s: %v, exit code %d\n%s%s", with, err, r.Code, r.Stdout, r.Stderr)
		}
	}
	defer func() {
		up(context.WithoutCancel(t.Context()), "none")
		m.settle(t, usual)
	}()
	up(t.Context(), "traces")
	at := fmt.Sprintf("http://127.0.0.1:%d", port)

	// An order that takes what comes and says nothing: who asks it is asked elsewhere after a second.
	c := m.anOrder(t)
	m.docker(t, "pause", c.ID)
	defer func() { _, _ = m.Docker(context.WithoutCancel(t.Context()), "unpause", c.ID) }()
	var sent []traced
	for range 40 {
		r := newTraced()
		if a := m.get(t, m.gateway+"/orders/1", "Traceparent", "00-"+r.trace+"-"+r.span+"-01"); a.status != http.StatusOK {
			t.Errorf("got %d %s", a.status, a.body)
		}
		sent = append(sent, r)
	}

	var slow traced
	until(t, 30*time.Second, "Jaeger has one connected trace with a second try in it", func(ctx context.Context) error {
		last := errors.New("each request was served by the first try")
		for _, r := range sent {
			got, err := m.jaeger(ctx, at, r.trace)
			if err != nil {
				last = err
				continue
			}
			if !slices.Contains(got.tag("rollcall.try.reason"), "beside") {
				continue
			}
			slow = r
			if loose, who := got.loose(r.span), got.services(); len(loose) > 0 || !slices.Equal(who, []string{"gateway", "order", "user"}) {
				last = fmt.Errorf("%s has spans of %v, and %v hang loose; want all three services, connected", r.trace, who, loose)
				continue
			}
			if outcomes := got.tag("rollcall.outcome"); !slices.Contains(outcomes, "silent") || !slices.Contains(outcomes, "ok") {
				last = fmt.Errorf("%s has the outcomes %v; want one that was silent and one ok", r.trace, outcomes)
				continue
			}
			return nil
		}
		return last
	})

	logs, err := m.Compose(t.Context(), "logs", "--no-log-prefix", "gateway", "order", "user")
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"gateway", "order", "user"} {
		if !slices.ContainsFunc(strings.Split(logs, "\n"), func(line string) bool {
			return strings.Contains(line, `"service":"`+service+`"`) && strings.Contains(line, `"trace_id":"`+slow.trace+`"`)
		}) {
			t.Errorf("the log of %s has no line of the trace %s", service, slow.trace)
		}
	}

	until(t, 30*time.Second, "a slow bucket of the gateway leads to that trace", func(ctx context.Context) error {
		var answer struct {
			Data []struct {
				Exemplars []struct {
					Labels map[string]string
					Value  string
				}
			}
		}
		now := time.Now()
		query := url.Values{
			"query": {`http_server_request_duration_seconds_bucket{job="gateway",route="/orders/"}`},
			"start": {fmt.Sprint(now.Add(-10 * time.Minute).Unix())}, "end": {fmt.Sprint(now.Add(time.Minute).Unix())},
		}
		if err := m.getJSON(ctx, m.prometheus+"/api/v1/query_exemplars?"+query.Encode(), &answer); err != nil {
			return err
		}
		n := 0
		for _, series := range answer.Data {
			for _, e := range series.Exemplars {
				n++
				var seconds float64
				if _, err := fmt.Sscan(e.Value, &seconds); err != nil || seconds < 0.9 {
					continue
				}
				got, err := m.jaeger(ctx, at, e.Labels["trace_id"])
				if err != nil {
					return err
				}
				if slices.Contains(got.tag("rollcall.outcome"), "silent") {
					return nil
				}
			}
		}
		return fmt.Errorf("%d exemplars, and none above 0.9 s; the trace %s took that long", n, slow.trace)
	})
}
