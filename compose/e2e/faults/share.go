package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
)

const (
	usualGets, usualPosts = 200, 20 // requests a second

	// room is how many times a row's load a machine has to serve to be given all of it. With less room a second's work of
	// anything else makes a queue: each row has containers started, and each container's health check is one.
	room       = 2.5
	leastShare = 0.1
)

// capacity is how many requests a second the fleet serves on this machine.
func (p *program) capacity(ctx context.Context) (float64, error) {
	return traffic.Capacity(ctx, p.Gateway(), 9*time.Second)
}

// shareFor is the share of a load, of so many requests a second, for a machine that serves so much, in tenths.
func shareFor(serves float64, load int) float64 {
	tenths := math.Floor(10 * serves / (room * float64(load)))
	return min(max(tenths/10, leastShare), 1)
}

// shareOf is the share of its load that a row gets.
func (p *program) shareOf(w row) float64 {
	if w.peak == 0 || p.serves == 0 {
		return p.share
	}
	return min(p.share, shareFor(p.serves, w.peak))
}

// scaled is that share of a rate, 1 at least. A rate below 0 is none.
func scaled(rate int, share float64) int {
	if rate < 0 {
		return 0
	}
	return max(1, int(math.Round(float64(rate)*share)))
}

// load says what the load is, and why.
func (m machine) load() string {
	s := fmt.Sprintf("The load is %d GETs and %d POSTs with keys a second", scaled(usualGets, m.share), scaled(usualPosts, m.share))
	if m.share < 1 {
		s += fmt.Sprintf(" (%.1f of the usual %d and %d)", m.share, usualGets, usualPosts)
	}
	if m.serves > 0 {
		s += fmt.Sprintf("; the fleet was seen to serve %.0f GETs a second here", m.serves)
	}
	return s + "."
}
