package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Container is one container as the engine knows it.
type Container struct {
	ID   string
	Name string
	// Service is the Compose service it belongs to.
	Service string
	// Address in the fleet's network, reachable from a Linux host. "" when it does not run.
	Address string
	Image   string
	State   State
	Config  struct {
		User     string
		Hostname string
		Labels   map[string]string
	}
	HostConfig struct {
		ReadonlyRootfs bool
		Privileged     bool
		CapDrop        []string
		CapAdd         []string
		SecurityOpt    []string
		Memory         int64
		PidsLimit      int64
		PortBindings   map[string][]struct{ HostIP, HostPort string }
	}
}

// State of a container.
type State struct {
	Status    string // "running", "paused", "exited", …
	Pid       int    // of its first process, as the host numbers it. 0 when it does not run
	ExitCode  int
	OOMKilled bool
	Health    struct{ Status string }
	// StartedAt and FinishedAt are when its process was last started, and last ended.
	StartedAt, FinishedAt time.Time
}

// Containers of a service, stopped ones too, ordered by name.
func (f *Fleet) Containers(ctx context.Context, service string) ([]Container, error) {
	out, err := f.docker(ctx, "container", "ls", "--all", "--quiet",
		"--filter", "label=com.docker.compose.project="+f.Project,
		"--filter", "label=com.docker.compose.service="+service,
		"--filter", "label=com.docker.compose.oneoff=False")
	if err != nil || out == "" {
		return nil, err
	}
	return f.inspect(ctx, strings.Fields(out)...)
}

// Inspect one container by its ID or name.
func (f *Fleet) Inspect(ctx context.Context, id string) (Container, error) {
	cs, err := f.inspect(ctx, id)
	if err != nil {
		return Container{}, err
	}
	return cs[0], nil
}

func (f *Fleet) inspect(ctx context.Context, ids ...string) ([]Container, error) {
	out, err := f.docker(ctx, append([]string{"container", "inspect"}, ids...)...)
	if err != nil {
		return nil, err
	}
	var raw []struct {
		Container

		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := json.Unmarshal([]byte(out), &raw); err != nil {
		return nil, fmt.Errorf("docker container inspect: %w", err)
	}
	var cs []Container
	for _, r := range raw {
		c := r.Container
		c.Name = strings.TrimPrefix(c.Name, "/")
		c.Service = c.Config.Labels["com.docker.compose.service"]
		for _, n := range r.NetworkSettings.Networks {
			if n.IPAddress != "" {
				c.Address = n.IPAddress
			}
		}
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(a, b Container) int { return strings.Compare(a.Name, b.Name) })
	return cs, nil
}
