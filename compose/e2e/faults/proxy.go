package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// proxy stands between the services and Consul, and refuses what it is told to.
type proxy struct {
	address string
	server  *http.Server
	ended   sync.WaitGroup

	refuse         atomic.Int32 // status with which everything is answered; 0: nothing is
	asked, refused atomic.Int64

	mu   sync.Mutex // guards held
	held map[*http.Request]context.CancelFunc
}

func newProxy(ctx context.Context, host netip.Addr, consul string) (*proxy, error) {
	target, err := url.Parse(consul)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		return nil, err
	}
	p := &proxy{address: l.Addr().String(), held: map[*http.Request]context.CancelFunc{}}
	through := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if status := p.refuse.Load(); status != 0 {
			p.refused.Add(1)
			http.Error(w, "refused by a proxy", int(status))
			return
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		p.hold(r, cancel)
		defer p.hold(r, nil)
		through.ServeHTTP(w, r.WithContext(ctx))
	})}
	p.ended.Go(func() {
		if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			_ = l.Close()
		}
	})
	return p, nil
}

func (p *proxy) hold(r *http.Request, cancel context.CancelFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cancel == nil {
		delete(p.held, r)
		return
	}
	p.held[r] = cancel
}

// cut ends the requests that wait for an answer.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cancel := range p.held {
		cancel()
	}
}

func (p *proxy) close() {
	_ = p.server.Close()
	p.ended.Wait()
}
