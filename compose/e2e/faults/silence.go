package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// forever is a delay that outlasts every patience.
const forever = "1h"

// hangPosts makes one order hang on POSTs. They have no keys, so nobody may send them elsewhere.
func hangPosts(ctx context.Context, r *trial) error {
	c, id, err := r.one(ctx, "order", 1)
	if err != nil {
		return err
	}
	orders, err := r.count(ctx, rig.Setting{})
	if err != nil {
		return err
	}
	r.start()
	if err := r.Fault(ctx, c, rig.Setting{Method: http.MethodPost, Unkeyed: true, Delay: forever, Count: true}); err != nil {
		return err
	}
	counted := time.Now()
	if err := r.ejected(ctx); err != nil {
		return err
	}
	if err := r.last(ctx, 25*time.Second); err != nil {
		return err
	}
	if err := r.executed(ctx, orders, counted); err != nil {
		return err
	}
	if err := r.Fault(ctx, c, rig.Setting{}); err != nil {
		return err
	}
	r.end()
	if err := r.recovered(ctx, "it answers POSTs", func(context.Context) error {
		if r.load.Count(func(s *traffic.Sample) bool {
			return s.Method == http.MethodPost && s.ServedBy == id && s.At.After(r.m.End) && !s.Failed()
		}) == 0 {
			return fmt.Errorf("%s has answered none", id)
		}
		return nil
	}); err != nil {
		return err
	}
	maps.Copy(r.m.Values, waits(r.load.Samples(), r.m.Start, r.m.Notice))
	return nil
}

// waits says what the POSTs that failed from the fault's start on tell, when the order was out of use so long after.
func waits(samples []traffic.Sample, start time.Time, notice time.Duration) map[string]float64 {
	if notice == judge.Unknown {
		return nil // it never was: then there is nothing to measure, which is out of bound
	}
	out := start.Add(notice)
	var ends []time.Time
	late := 0.0
	for i := range samples {
		s := &samples[i]
		if s.Method != http.MethodPost || !s.Failed() || s.At.Before(start) {
			continue
		}
		ends = append(ends, s.End())
		if s.At.After(out) {
			late++
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	values := map[string]float64{lateFailures: late, outAfter: 0} // before the third wait had ended is soon enough
	if len(ends) >= 3 {
		values[outAfter] = max(0, out.Sub(ends[2]).Seconds())
	}
	return values
}

// count has every order count executions, besides a fault of all.
func (r *trial) count(ctx context.Context, s rig.Setting) ([]fleet.Container, error) {
	orders, err := r.Running(ctx, "order")
	if err != nil {
		return nil, err
	}
	s.Count = true
	for _, c := range orders {
		if err := r.Fault(ctx, c, s); err != nil {
			return nil, err
		}
	}
	return orders, nil
}

// executed notes how many times requests were executed since all orders counted.
func (r *trial) executed(ctx context.Context, orders []fleet.Container, since time.Time) error {
	samples := r.load.Samples() // before the counts: what has been answered has been counted
	counts, err := r.Executions(ctx, orders)
	if err != nil {
		return err
	}
	gets, getsMean := judge.Executions(counts, r.name+"-get-")
	posts, postsMean := judge.Executions(counts, r.name+"-post-")
	r.m.Values[executionsGet], r.m.Values[executionsPost] = float64(gets), float64(posts)
	r.m.Values[uncounted] = float64(judge.Uncounted(samples, counts, since, time.Now()))
	r.note("a GET was executed %.2f times in the mean, a POST %.2f times", getsMean, postsMean)
	return nil
}

// slowEverywhere makes every order slower than a client waits for one. The rate is one that they bear at that pace.
func slowEverywhere(ctx context.Context, r *trial) error {
	r.start()
	orders, err := r.count(ctx, rig.Setting{Delay: "1.5s"})
	if err != nil {
		return err
	}
	counted := time.Now()
	if err := r.last(ctx, 25*time.Second); err != nil {
		return err
	}
	if err := r.executed(ctx, orders, counted); err != nil {
		return err
	}
	if err := heal(ctx, r); err != nil {
		return err
	}
	r.end()
	err = r.recovered(ctx, "each serves", func(ctx context.Context) error {
		for _, c := range orders {
			id, err := r.ID(ctx, c)
			if err != nil {
				return err
			}
			if err := r.serves(id, r.m.End)(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	r.nobodyOut()
	return err
}
