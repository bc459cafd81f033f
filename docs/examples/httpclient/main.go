// Command httpclient asks a service through an http.Client of its own: with a
// timeout, a header on every request, and a report of where each one went.
//
//	httpclient http://greeter/greet/Ann
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("want one argument: a URL whose host is a service's name")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(url string) error {
	ctx := context.Background()
	mesh, err := discovery.Open(ctx, discovery.Config{})
	if err != nil {
		return err
	}
	defer mesh.Close()
	client := &http.Client{
		Transport: signed{mesh.RoundTripper()}, // yours around the mesh's, never below it
		Timeout:   5 * time.Second,
	}

	var report httpmesh.Report
	req, err := http.NewRequestWithContext(httpmesh.WithReport(ctx, &report), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err // its text says each try
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return err
	}
	if instance, ok := report.Served(); ok {
		fmt.Fprintf(os.Stdout, "served by %s, one of %d, in %d try\n", instance.ID, report.Counts.Known, len(report.Tries))
	}
	return nil
}

// signed puts a header on each request.
type signed struct{ next http.RoundTripper }

func (s signed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context()) // a RoundTripper doesn't change its request
	r.Header.Set("User-Agent", "rollcall-example")
	return s.next.RoundTrip(r)
}
