package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// rotated is how long after a rotation everything that is told to Consul has to reach the catalog again.
const rotated = 20 * time.Second

// aclConfig of a Consul that refuses what it has no token for. Its own entries are written with the management token.
const aclConfig = `acl {
  enabled        = true
  default_policy = "deny"
  tokens {
    initial_management               = %[1]q
    agent                            = %[1]q
    config_file_service_registration = %[1]q
  }
}
`

// rights are the least that a service can do with.
const rights = `service %q { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
agent "consul" { policy = "read" }
`

// tokens are the services' own.
type tokens struct {
	folder string            // of their files: one folder for each service
	now    map[string]string // accessor of each service's present token
}

// withTokens starts the fleet anew with a Consul that has ACLs.
func withTokens(ctx context.Context, r *trial) error {
	if err := r.Clear(ctx); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "faults-")
	if err != nil {
		return err
	}
	r.stop = append(r.stop, func() { _ = os.RemoveAll(folder) })
	management := uuid()
	config := filepath.Join(folder, "config")
	if err := os.CopyFS(config, os.DirFS(filepath.Join(r.Dir, "compose", "consul"))); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(config, "acl.hcl"), fmt.Appendf(nil, aclConfig, management), 0o644); err != nil {
		return err
	}
	if r.Rig, err = r.WithToken(management); err != nil {
		return err
	}
	r.Overlay(overlay("tokens"), "FAULTS_MANAGEMENT="+management, "FAULTS_CONSUL_CONFIG="+config, "FAULTS_TOKENS="+folder)
	if _, err := r.Compose(ctx, "up", "--detach", "consul"); err != nil {
		return err
	}
	if err := rig.Until(ctx, patience, "Consul knows its management token", func(ctx context.Context) error {
		_, _, err := r.Consul.ACL().TokenReadSelf((&api.QueryOptions{}).WithContext(ctx))
		return err
	}); err != nil {
		return err
	}
	r.tokens = &tokens{folder: folder, now: map[string]string{}}
	for _, service := range slices.Sorted(maps.Keys(rig.Usual)) {
		if _, _, err := r.Consul.ACL().PolicyCreate(&api.ACLPolicy{Name: service, Rules: fmt.Sprintf(rights, service)}, nil); err != nil {
			return err
		}
		if err := r.rotate(service); err != nil {
			return err
		}
	}
	if _, err := r.Compose(ctx, "up", "--detach"); err != nil {
		return err
	}
	return rig.Until(ctx, 90*time.Second, "a fleet with tokens settles", func(ctx context.Context) error { return r.Serving(ctx, rig.Usual) })
}

// rotate writes a new token into a service's file, and deletes the old one.
func (r *trial) rotate(service string) error {
	fresh, _, err := r.Consul.ACL().TokenCreate(&api.ACLToken{Description: service, Policies: []*api.ACLTokenPolicyLink{{Name: service}}}, nil)
	if err != nil {
		return err
	}
	at := filepath.Join(r.tokens.folder, service)
	if err := os.MkdirAll(at, 0o755); err != nil { //nolint:gosec // the service is another user
		return err
	}
	part := filepath.Join(at, ".token")
	if err := os.WriteFile(part, []byte(fresh.SecretID+"\n"), 0o644); err != nil { //nolint:gosec // as above
		return err
	}
	if err := os.Rename(part, filepath.Join(at, "token")); err != nil {
		return err
	}
	if old := r.tokens.now[service]; old != "" {
		if _, err := r.Consul.ACL().TokenDelete(old, nil); err != nil {
			return err
		}
	}
	r.tokens.now[service] = fresh.AccessorID
	return nil
}

func rotateToken(ctx context.Context, r *trial) error {
	r.start()
	for service := range r.tokens.now {
		if err := r.rotate(service); err != nil {
			return err
		}
	}
	if err := r.last(ctx, rotated); err != nil {
		return err
	}
	if err := r.restartSeen(ctx, "user", "order"); err != nil {
		return err
	}
	four := maps.Clone(rig.Usual)
	four["order"] = 4
	if _, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", "order=4"); err != nil {
		return err
	}
	if err := rig.Until(ctx, patience, "four orders are there", func(ctx context.Context) error { return r.Passing(ctx, four) }); err != nil {
		r.note("%v", err)
	}
	// The newcomer leaves, and one that has been there since before the rotation.
	if _, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", "order=2"); err != nil {
		return err
	}
	r.end()
	two := maps.Clone(rig.Usual)
	two["order"] = 2
	err := r.recovered(ctx, "two orders in the catalog", func(ctx context.Context) error { return r.Passing(ctx, two) })
	if err != nil {
		return err
	}
	if r.m.Values[tooMany], _, err = r.compare(ctx); err != nil {
		return err
	}
	return r.countBlocked(ctx)
}

// restartSeen restarts one instance of each service, and notes how long it took until the catalog showed its drain:
// the longest of them, and nothing if one never showed.
func (r *trial) restartSeen(ctx context.Context, services ...string) error {
	var longest time.Duration
	all := true
	for _, service := range services {
		c, id, err := r.one(ctx, service, 0)
		if err != nil {
			return err
		}
		showed, err := r.stopSeen(ctx, c, id)
		if err != nil {
			return err
		}
		if showed < 0 {
			all = false
			r.note("the catalog never showed that %s was draining", id)
		}
		longest = max(longest, showed)
		if err := r.docker(ctx, "start", c.ID); err != nil {
			return err
		}
		if err := rig.Until(ctx, patience, c.Name+" is back", r.usual); err != nil {
			r.note("%v", err)
		}
	}
	if all {
		r.m.Values[drainShows] = longest.Seconds()
	}
	return nil
}

// stopSeen stops a container, and returns how long after that the catalog showed its entry as critical: negative if it
// never did before the entry went, or for a while after the container did.
func (r *trial) stopSeen(ctx context.Context, c fleet.Container, id string) (time.Duration, error) {
	began := time.Now()
	var stopped error
	var stopping sync.WaitGroup
	stopping.Go(func() { stopped = r.docker(ctx, "stop", c.ID) })
	showed := time.Duration(-1)
	_ = rig.Until(ctx, 30*time.Second, "it leaves", func(ctx context.Context) error {
		es, err := r.Entries(ctx, c.Service)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(es, func(e *entry) bool { return e.Service.ID == id })
		if at < 0 {
			return nil
		}
		if es[at].Checks.AggregatedStatus() == api.HealthCritical {
			showed = time.Since(began)
			return nil
		}
		return errors.New("it is passing")
	})
	stopping.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return showed, stopped
}

// compare counts the entries that no running container has, and the running containers without a passing entry.
func (r *trial) compare(ctx context.Context) (extra, missing float64, err error) {
	for service := range rig.Usual {
		es, err := r.Entries(ctx, service)
		if err != nil {
			return 0, 0, err
		}
		cs, err := r.Running(ctx, service)
		if err != nil {
			return 0, 0, err
		}
		has := map[string]bool{} // by address: whether the entry passes
		for _, e := range es {
			has[e.Service.Address] = has[e.Service.Address] || e.Checks.AggregatedStatus() == api.HealthPassing
		}
		here := 0
		for _, c := range cs {
			if passes, ok := has[c.Address]; ok {
				here++ // an instance has one entry
				if passes {
					continue
				}
			}
			missing++
		}
		extra += float64(len(es) - here)
	}
	return extra, missing, nil
}

// countBlocked counts what services told the agent and ACLs kept from the catalog, when all of them had had time to use
// their new tokens. Only the agent's log says so: to the services it says 200.
func (r *trial) countBlocked(ctx context.Context) error {
	c, err := r.consul(ctx)
	if err != nil {
		return err
	}
	lines, err := r.logged(ctx, c, r.m.Start.Add(rotated))
	if err != nil {
		return err
	}
	r.m.Values[blocked] = 0
	for _, line := range lines {
		if strings.Contains(line, "blocked by ACLs") {
			r.m.Values[blocked]++
		}
	}
	return nil
}

// logged returns the lines that a container has logged since a time.
func (r *trial) logged(ctx context.Context, c fleet.Container, since time.Time) ([]string, error) {
	out, err := r.Run(ctx, "docker", "logs", "--since", since.UTC().Format(time.RFC3339Nano), c.ID)
	if err != nil {
		return nil, err
	}
	return strings.Split(out.Stdout+out.Stderr, "\n"), nil
}

// uuid is a new random one.
func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
