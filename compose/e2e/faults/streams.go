package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
)

const (
	streamPath  = "/orders/stream"
	streamsHeld = 3
)

// openStreams makes one order fail and heal. All hold streams, whose headers were sent before and which say nothing
// more.
func openStreams(ctx context.Context, r *trial) error {
	c, id, err := r.one(ctx, "order", 1)
	if err != nil {
		return err
	}
	orders, err := r.Running(ctx, "order")
	if err != nil {
		return err
	}
	for _, o := range orders {
		if err := r.Fault(ctx, o, rig.Setting{Stream: streamPath}); err != nil {
			return err
		}
	}
	open, err := r.hold(ctx, id)
	if err != nil {
		return err
	}
	r.start()
	if err := r.Fault(ctx, c, rig.Setting{Status: http.StatusInternalServerError}); err != nil {
		return err
	}
	if err := r.ejected(ctx); err != nil {
		return err
	}
	if err := r.last(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := r.Fault(ctx, c, rig.Setting{}); err != nil {
		return err
	}
	r.end()
	err = r.recovered(ctx, "it has a fifth of the answers in a second", r.hasShare(id))
	r.m.Values[streamsOpen] = float64(open.Load())
	return err
}

// hold opens streams through the gateway, and keeps them open until the row is over, until an instance has as many as
// it is to hold; open counts those of it that have not ended. An instance with a stream is asked for the next one
// last, so that all get about as many.
func (r *trial) hold(ctx context.Context, id string) (open *atomic.Int64, err error) {
	holding, end := context.WithCancel(context.WithoutCancel(ctx))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var reading sync.WaitGroup
	r.stop = append(r.stop, func() { end(); reading.Wait() })
	open = new(atomic.Int64)
	for range 20 * streamsHeld {
		req, err := http.NewRequestWithContext(holding, http.MethodGet, r.bases[0]+streamPath, nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("open a stream: %w", err)
		}
		of := new(atomic.Int64) // somebody else's
		if resp.Header.Get("X-Served-By") == id {
			of = open
		}
		of.Add(1)
		reading.Go(func() {
			_, _ = io.Copy(io.Discard, resp.Body) // until it ends, in whatever way
			of.Add(-1)
			_ = resp.Body.Close()
		})
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("open a stream: status %d", resp.StatusCode)
		}
		if open.Load() == streamsHeld {
			return open, nil
		}
	}
	return nil, fmt.Errorf("of %d streams, %d are to %s; want %d", 20*streamsHeld, open.Load(), id, streamsHeld)
}
