package main

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
)

// The rows whose names end with -grpc hold for gRPC what others hold for HTTP: order asks user by it, so their
// faults are user's. Order can answer some requests without user, and says so: here none may be.

// overGRPC has order ask user by gRPC.
func overGRPC(ctx context.Context, r *trial) error {
	r.Overlay(overlay("grpc"))
	return r.renewOrders(ctx)
}

// overHTTP takes that back.
func overHTTP(ctx context.Context, r *trial) error {
	r.Overlay("")
	return r.renewOrders(ctx)
}

func (r *trial) renewOrders(ctx context.Context) error {
	if _, err := r.Compose(ctx, "up", "--detach", "--no-deps", "order"); err != nil {
		return err
	}
	return rig.Until(ctx, patience, "the new orders serve", func(ctx context.Context) error { return r.Serving(ctx, rig.Usual) })
}

// byGRPC is a fault, after which it is noted how many answers were given without user, and whether it was gRPC that
// user was asked by.
func byGRPC(fault func(context.Context, *trial) error) func(context.Context, *trial) error {
	return func(ctx context.Context, r *trial) error {
		if err := fault(ctx, r); err != nil {
			return err
		}
		r.m.Values[withoutUser] = float64(r.load.Count(func(s *traffic.Sample) bool { return s.Degraded }))
		cs, err := r.Running(ctx, "user")
		if err != nil {
			return err
		}
		for _, c := range cs {
			page, err := r.Want(ctx, http.MethodGet, rig.Admin(c)+"/metrics", nil)
			if err != nil {
				continue // it has just begun; the catalog may have known it all along
			}
			if strings.Contains(string(page.Body), `method="/rollcall.user.v1.UserService/GetUser"`) {
				return nil
			}
		}
		return errors.New("no user was asked by gRPC")
	}
}

func scaleUsers(ctx context.Context, r *trial) error {
	r.start()
	for _, n := range []string{"4", "2"} {
		if _, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", "user="+n); err != nil {
			return err
		}
		if n == "2" {
			break
		}
		four := maps.Clone(rig.Usual)
		four["user"] = 4
		if err := rig.Until(ctx, patience, "four users are there", func(ctx context.Context) error { return r.Passing(ctx, four) }); err != nil {
			return err
		}
		if err := rig.Pause(ctx, 5*time.Second); err != nil {
			return err
		}
	}
	r.end()
	return r.recovered(ctx, "two users in the catalog", r.usual)
}

func killUser(ctx context.Context, r *trial) error {
	c, _, err := r.one(ctx, "user", 0)
	if err != nil {
		return err
	}
	r.start()
	if err := r.docker(ctx, "kill", "--signal", "KILL", c.ID); err != nil {
		return err
	}
	if err := r.last(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := r.docker(ctx, "start", c.ID); err != nil {
		return err
	}
	r.end()
	return r.recovered(ctx, "both users in the catalog", r.usual)
}

func pauseUser(ctx context.Context, r *trial) error {
	c, _, err := r.one(ctx, "user", 0)
	if err != nil {
		return err
	}
	r.start()
	if err := r.docker(ctx, "pause", c.ID); err != nil {
		return err
	}
	if err := r.last(ctx, 20*time.Second); err != nil {
		return err
	}
	if err := r.docker(ctx, "unpause", c.ID); err != nil {
		return err
	}
	r.end()
	return r.recovered(ctx, "both users in the catalog", r.usual)
}
