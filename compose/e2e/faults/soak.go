package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
)

// soakable are the rows that a soak draws from: those that need no fleet of their own and never end the gateway,
// whose growth is what a soak measures.
var soakable = []string{
	"kill-order", "pause-order", "errors", "slow", "consul-restart", "consul-wipe", "disconnect", "all-critical",
	"maintenance", "users-killed", "clock",
}

// growth bounds what a quantity may be at the end, to what it was after the warm-up.
const growth = 1.10

// quantities of the gateway, by what they are called.
var quantities = []struct {
	name string
	of   func(rig.Metrics) float64
}{
	{"live heap (MiB)", func(m rig.Metrics) float64 { return m.Sum("go_memstats_heap_alloc_bytes") / (1 << 20) }},
	{"goroutines", func(m rig.Metrics) float64 { return m.Sum("go_goroutines") }},
	{"file descriptors", func(m rig.Metrics) float64 { return m.Sum("process_open_fds") }},
	{"series", func(m rig.Metrics) float64 { return float64(len(m)) }},
}

// soak makes random faults for a time, under a steady load, and compares what the gateway holds at the end with
// what it held after each kind of fault had been made once.
func (p *program) soak(ctx context.Context, lasts time.Duration, seed uint64) (string, error) {
	if err := p.Repair(ctx, true); err != nil {
		return "", err
	}
	name := fmt.Sprintf("soak-%d", p.serial)
	r := &trial{Rig: p.Rig, share: p.share, m: judge.Measured{Values: map[string]float64{}}, bases: []string{p.Gateway()}}
	user, err := r.newUser(ctx, name)
	if err != nil {
		return "", err
	}
	load, err := traffic.Start(traffic.Config{Name: name, Bases: r.bases, Gets: 100, Posts: 10, User: user})
	if err != nil {
		return "", err
	}
	defer load.Stop()

	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // it is to be repeatable
	end := time.Now().Add(lasts)
	made := map[string]int{}
	var wrong []string
	do := func(which string) error {
		fmt.Fprintf(p.out, "    %s left: %s\n", time.Until(end).Round(time.Second), which)
		made[which]++
		if err := p.soakFault(ctx, load, which); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", which, err))
			fmt.Fprintln(p.out, "      ", err)
		}
		if err := p.Repair(ctx, false); err != nil {
			return err
		}
		return ctx.Err()
	}
	for _, which := range soakable { // the warm-up
		if err := do(which); err != nil {
			return "", err
		}
	}
	first, err := p.hold(ctx)
	if err != nil {
		return "", err
	}
	for time.Until(end) > time.Minute {
		if err := do(soakable[random.IntN(len(soakable))]); err != nil {
			return "", err
		}
	}
	last, err := p.hold(ctx)
	if err != nil {
		return "", err
	}
	load.Stop()
	samples := load.Samples()
	r.m.Samples = samples
	if err := r.audit(ctx, user, name); err != nil {
		return "", err
	}
	return p.soaked(r, lasts, seed, made, first, last, wrong)
}

func (p *program) soakFault(ctx context.Context, load *traffic.Load, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, longest, errors.New("the fault took too long"))
	defer cancel()
	w := rows[slices.IndexFunc(rows, func(r row) bool { return r.name == name })]
	r := &trial{Rig: p.Rig, share: p.share, load: load, bases: []string{p.Gateway()}, m: judge.Measured{Began: time.Now(), Values: map[string]float64{}}}
	stop := r.watching(ctx)
	defer stop()
	if err := rig.Pause(ctx, 3*time.Second); err != nil {
		return err
	}
	err := w.fault(ctx, r)
	if w.restore != nil {
		err = errors.Join(err, w.restore(ctx, r))
	}
	if err == nil && r.m.Recovered.IsZero() {
		err = errors.New("not recovered in time")
	}
	return err
}

// hold returns the quantities, each the least of a minute without a fault: the heap's is then that after a
// collection, and connections are those that the load needs.
func (p *program) hold(ctx context.Context) ([]float64, error) {
	var least []float64
	for range 60 {
		if err := rig.Pause(ctx, time.Second); err != nil {
			return nil, err
		}
		m, err := p.Metrics(ctx, p.GatewayAdmin())
		if err != nil {
			return nil, err
		}
		for n, q := range quantities {
			v := q.of(m)
			if n == len(least) {
				least = append(least, v)
			}
			least[n] = min(least[n], v)
		}
	}
	return least, nil
}

// soaked writes the page, and says what was out of bound.
func (p *program) soaked(r *trial, lasts time.Duration, seed uint64, made map[string]int, first, last []float64, wrong []string) (string, error) {
	var b strings.Builder
	failed := 0
	for i := range r.m.Samples {
		if r.m.Samples[i].Failed() {
			failed++
		}
	}
	total := 0
	var kinds []string
	for _, name := range soakable {
		total += made[name]
		kinds = append(kinds, fmt.Sprintf("%s ×%d", name, made[name]))
	}
	fmt.Fprintf(&b, "%s, seed %d: %d faults under 100 GETs and 10 POSTs with keys a second; %d requests, %d failed; acknowledged and lost %d, stored twice %d.\n\n",
		lasts, seed, total, len(r.m.Samples), failed, r.m.Lost, r.m.Twice)
	fmt.Fprintf(&b, "Faults: %s.\n\n| of the gateway | after the warm-up | at the end | |\n| --- | --- | --- | --- |\n", strings.Join(kinds, ", "))
	for n, q := range quantities {
		grew := last[n] / first[n]
		fmt.Fprintf(&b, "| %s | %.4g | %.4g | %+.1f %% |\n", q.name, first[n], last[n], 100*(grew-1))
		if grew > growth {
			wrong = append(wrong, fmt.Sprintf("%s grew from %.4g to %.4g", q.name, first[n], last[n]))
		}
	}
	if r.m.Lost+r.m.Twice+r.m.Phantom > 0 {
		wrong = append(wrong, "orders were lost, doubled or made up")
	}
	if len(wrong) > 0 {
		return b.String(), fmt.Errorf("soak: %s", strings.Join(wrong, "; "))
	}
	return b.String(), nil
}

func (p *program) soakTo(ctx context.Context, out io.Writer, o options, m machine) error {
	page, err := p.soak(ctx, o.soak, o.seed)
	if page == "" {
		return err
	}
	page = fmt.Sprintf("# Soak, measured\n\nWritten by `make soak`. %s\n\n%s", m, page)
	fmt.Fprintf(out, "\n%s", page)
	if o.out == "" {
		return err
	}
	return errors.Join(err, os.MkdirAll(o.out, 0o755), os.WriteFile(filepath.Join(o.out, "soak.md"), []byte(page), 0o644))
}
