package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// fork is a port that leads each connection of a client to the next one of several agents, as a balancer does that
// knows nothing of what goes through it.
type fork struct {
	address  string
	listener net.Listener
	ended    sync.WaitGroup

	mu     sync.Mutex            // guards what follows
	agents []string              // where connections are led to, in turn
	turns  map[string]int        // connections of a client so far, by its address
	led    map[string]int        // connections so far, by agent
	open   map[net.Conn]struct{} // both ends of each
	closed bool
}

// newFork leads to agents (host:port) what comes to a free port of a host.
func newFork(ctx context.Context, host netip.Addr, agents ...string) (*fork, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		return nil, err
	}
	f := &fork{address: l.Addr().String(), listener: l, open: map[net.Conn]struct{}{}}
	f.lead(agents...)
	f.ended.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			f.ended.Go(func() { f.serve(ctx, client) })
		}
	})
	return f, nil
}

// lead ends the connections that there are, and leads the next ones to these agents in turn.
func (f *fork) lead(agents ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.agents, f.turns, f.led = agents, map[string]int{}, map[string]int{}
	for c := range f.open {
		_ = c.Close()
	}
}

// next is the agent for a new connection of a client.
func (f *fork) next(client net.Conn) string {
	host, _, _ := net.SplitHostPort(client.RemoteAddr().String())
	f.mu.Lock()
	defer f.mu.Unlock()
	agent := f.agents[f.turns[host]%len(f.agents)]
	f.turns[host]++
	f.led[agent]++
	return agent
}

func (f *fork) serve(ctx context.Context, client net.Conn) {
	defer f.forget(client)
	if !f.keep(client) {
		return
	}
	agent, err := new(net.Dialer).DialContext(ctx, "tcp", f.next(client))
	if err != nil {
		return
	}
	defer f.forget(agent)
	if !f.keep(agent) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, agent) // ends with either end
		_ = client.Close()
	})
	_, _ = io.Copy(agent, client)
	_ = agent.Close()
	back.Wait()
}

// keep notes a connection, so that it is ended with the others; false once the fork is closed.
func (f *fork) keep(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.open[c] = struct{}{}
	}
	return !f.closed
}

func (f *fork) forget(c net.Conn) {
	_ = c.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, c)
}

// String says how many connections were led to each agent since the last lead.
func (f *fork) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []string
	for _, agent := range f.agents {
		parts = append(parts, fmt.Sprintf("%d connections led to %s", f.led[agent], agent))
	}
	return strings.Join(parts, ", ")
}

func (f *fork) close() {
	f.mu.Lock()
	f.closed = true
	for c := range f.open {
		_ = c.Close()
	}
	f.mu.Unlock()
	_ = f.listener.Close()
	f.ended.Wait()
}
