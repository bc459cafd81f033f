package otlp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// jaeger starts a Jaeger, and returns its endpoint for OTLP and the URL of its API.
func jaeger(t *testing.T) (endpoint, api string) {
	t.Helper()
	binary := os.Getenv("JAEGER_BIN")
	if binary == "" {
		t.Skip("needs a real Jaeger: JAEGER_BIN is not set")
	}
	var ports []string
	for range 7 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all are held until the last is found
		ports = append(ports, l.Addr().String())
	}
	cmd := exec.CommandContext(t.Context(), binary,
		"--collector.otlp.grpc.host-port="+ports[0], "--collector.otlp.http.host-port="+ports[1],
		"--query.http-server.host-port="+ports[2], "--query.grpc-server.host-port="+ports[3],
		"--admin.http.host-port="+ports[4], "--collector.grpc-server.host-port="+ports[5], "--collector.http-server.host-port="+ports[6],
		"--memory.max-traces=10")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // its context has ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	return "http://" + ports[1], "http://" + ports[2]
}

// ask asks until the answer is 200 and holds.
func ask(t *testing.T, url string, holds func(body []byte) error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	end := time.Now().Add(30 * time.Second)
	for {
		err := func() error {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s %.300s", resp.Status, body)
			}
			if err != nil {
				return err
			}
			return holds(body)
		}()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", url, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestJaegerTellsOneConnectedTraceWithARetryInIt(t *testing.T) {
	endpoint, api := jaeger(t)
	ask(t, api+"/api/services", func([]byte) error { return nil })
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
	request(t)
	ask(t, api+"/api/traces/"+given, func(body []byte) error {
		var answer struct {
			Data []struct {
				Spans []struct {
					SpanID     string
					References []struct{ SpanID string }
					Tags       []struct {
						Key   string
						Value any
					}
				}
			}
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		if len(answer.Data) != 1 || len(answer.Data[0].Spans) != 7 {
			return fmt.Errorf("want one trace with 7 spans in it: %s", body)
		}
		known, reasons := map[string]bool{"00f067aa0ba902b7": true}, []string{}
		for _, s := range answer.Data[0].Spans {
			known[s.SpanID] = true
			for _, tag := range s.Tags {
				if tag.Key == "rollcall.try.reason" {
					reasons = append(reasons, fmt.Sprint(tag.Value))
				}
			}
		}
		for _, s := range answer.Data[0].Spans {
			if len(s.References) != 1 || !known[s.References[0].SpanID] {
				return fmt.Errorf("%s is below none of the others: %s", s.SpanID, body)
			}
		}
		if slices.Sort(reasons); !slices.Equal(reasons, []string{"first", "retry after gateway"}) {
			return fmt.Errorf("the tries are %v; want the first and a retry", reasons)
		}
		return nil
	})
}
