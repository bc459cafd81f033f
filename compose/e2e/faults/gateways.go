package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

func twoGateways(ctx context.Context, r *trial) error {
	var low int
	for range 50 { // two free ports beside each other
		p, err := fleet.FreePort(ctx)
		if err != nil {
			return err
		}
		if fleet.Free(ctx, p+1) {
			low = p
			break
		}
	}
	if low == 0 {
		return notMade("no two free ports beside each other were found")
	}
	r.Overlay(overlay("gateways"), fmt.Sprintf("FAULTS_GATEWAYS=%d-%d", low, low+1))
	if _, err := r.Compose(ctx, "up", "--detach"); err != nil {
		return err
	}
	r.bases = []string{fmt.Sprintf("http://127.0.0.1:%d", low), fmt.Sprintf("http://127.0.0.1:%d", low+1)}
	two := maps.Clone(rig.Usual)
	two["gateway"] = 2
	return rig.Until(ctx, patience, "two gateways serve", func(ctx context.Context) error {
		for _, base := range r.bases {
			if _, err := r.Want(ctx, http.MethodGet, base+"/orders/1", nil); err != nil {
				return err
			}
		}
		return r.Passing(ctx, two)
	})
}

func restartGateways(ctx context.Context, r *trial) error {
	two := maps.Clone(rig.Usual)
	two["gateway"] = 2
	passing := func(ctx context.Context) error { return r.Passing(ctx, two) }
	r.start()
	cs, err := r.Running(ctx, "gateway")
	if err != nil {
		return err
	}
	var away []span
	for _, c := range cs {
		if err := r.docker(ctx, "restart", c.ID); err != nil {
			return err
		}
		again, err := r.Inspect(ctx, c.ID)
		if err != nil {
			return err
		}
		away = append(away, span{again.State.FinishedAt, again.State.StartedAt})
		if err := rig.Until(ctx, patience, c.Name+" is back", passing); err != nil {
			return err
		}
	}
	r.end()
	if err := r.recovered(ctx, "both are registered", passing); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 2*time.Second); err != nil { // for those that still wait
		return err
	}
	within, outside := waited(r.load.Samples(), r.m.Start, away)
	r.m.Values[waitedForUs] = float64(len(outside))
	r.note("%d waited that were sent while one of the two did not run", within)
	for _, s := range outside[:min(3, len(outside))] {
		r.note("waited for a gateway: %s", s)
	}
	r.note("%d requests were answered at the other port", r.load.Count(func(s *traffic.Sample) bool { return s.Other && !s.Failed() }))
	return nil
}

// span is a time, both ends included.
type span struct{ from, to time.Time }

// waited are the requests, sent from a time on, that took half a second or more: how many were sent in a span, and the
// others.
//
// The engine begins to listen at a container's port some 300 ms before the container has a network. What it takes in
// then waits until the first packet of the engine's own connection to the container is repeated, after a second. So who
// waited in that span waited for the engine.
func waited(samples []traffic.Sample, from time.Time, spans []span) (within int, outside []*traffic.Sample) {
	for i := range samples {
		s := &samples[i]
		if s.Took < 500*time.Millisecond || s.At.Before(from) {
			continue
		}
		if slices.ContainsFunc(spans, func(w span) bool { return !s.At.Before(w.from) && !s.At.After(w.to) }) {
			within++
		} else {
			outside = append(outside, s)
		}
	}
	return within, outside
}
