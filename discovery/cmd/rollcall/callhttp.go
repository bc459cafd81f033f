package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// overHTTP returns what sends a request of HTTP; end releases it.
func (c *callCmd) overHTTP(_ context.Context, _ *session, mesh *discovery.Mesh, data []byte, headers []header) (call caller, end func(), err error) {
	first, err := c.request(data, headers)
	if err != nil {
		return nil, nil, &exitError{exitUsage, err}
	}
	call = func(ctx context.Context) (a answer) {
		r := first.Clone(httpmesh.WithReport(ctx, &a.report))
		r.Body, _ = first.GetBody() // of bytes: it can't fail
		response, err := mesh.RoundTripper().RoundTrip(r)
		if err != nil {
			a.status, a.err = noStatus, err
			return a
		}
		defer response.Body.Close()
		a.status, a.answered = strconv.Itoa(response.StatusCode), true
		if c.Requests == 1 {
			if a.body, a.err = io.ReadAll(io.LimitReader(response.Body, mostBody)); a.err != nil {
				return a
			}
		}
		_, a.err = io.Copy(io.Discard, response.Body)
		return a
	}
	return call, func() {}, nil
}

// request returns the one of which each that is sent is a copy.
func (c *callCmd) request(data []byte, headers []header) (*http.Request, error) {
	at, err := url.ParseRequestURI(c.Path)
	if err != nil {
		return nil, fmt.Errorf("the path is %q; want a path, with or without a query: %w", c.Path, err)
	}
	at.Scheme, at.Host = "http", c.Service
	if c.TLS {
		at.Scheme = "https"
	}
	r, err := http.NewRequest(c.verb(), at.String(), bytes.NewReader(data)) //nolint:noctx // each copy has one
	if err != nil {
		return nil, fmt.Errorf("--method is %q: %w", c.Method, err)
	}
	for _, h := range headers {
		r.Header.Add(h.name, h.value)
	}
	if r.Header.Get("Content-Type") == "" && json.Valid(data) {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// verb is the method of HTTP.
func (c *callCmd) verb() string {
	switch {
	case c.Method != "":
		return c.Method
	case c.Data != "":
		return http.MethodPost
	}
	return http.MethodGet
}
