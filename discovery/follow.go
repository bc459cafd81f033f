package discovery

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// What a program may want to know of Consul besides the instances of services: which
// services there are, and small documents. Each is one question that Consul holds, put
// once a second at most. The sources of catalog know nothing of them, so with
// Config.Source they are errors.

var errNoConsul = errors.New("the mesh has a Source of its own, and asks no Consul")

// FollowServices tells, until ctx ends, the names of all services in the catalog with
// the tags that any instance of theirs has: once at the start, and when either
// changes. An error is told too; what was told before stays the last that is known,
// and the question is put again. told is called by the caller's goroutine and must be
// quick. It takes service:read, and a service without that right is left out.
func (m *Mesh) FollowServices(ctx context.Context, told func(services map[string][]string, err error)) error {
	client, err := m.asker()
	if err != nil {
		return fmt.Errorf("discovery: follow the services: %w", err)
	}
	return consul.Follow(ctx, func(q *api.QueryOptions) (map[string][]string, *api.QueryMeta, error) {
		m.asked("services")
		return consul.CatalogServices(client, q)
	}, func(services map[string][]string, _ *api.QueryMeta, err error) { told(services, err) })
}

// FollowKey tells, as FollowServices does, the value under a key of Consul's KV and
// the index by which WriteKey replaces it: nil and 0 while there is none. It takes
// key:read.
func (m *Mesh) FollowKey(ctx context.Context, key string, told func(value []byte, index uint64, err error)) error {
	client, err := m.keys(key)
	if err != nil {
		return fmt.Errorf("discovery: follow a key: %w", err)
	}
	return consul.Follow(ctx, func(q *api.QueryOptions) (consul.Pair, *api.QueryMeta, error) {
		m.asked("key")
		return consul.Key(client, key, q)
	}, func(pair consul.Pair, _ *api.QueryMeta, err error) { told(pair.Value, pair.Index, err) })
}

// ErrDenied is the error, wrapped, of WriteKey and FollowKey without the right to.
var ErrDenied = consul.ErrDenied

// WriteKey writes a value, 512 KiB at most, under a key of Consul's KV if the key has
// not changed since it had that index, 0 for a key that is not there. It reports
// whether it was written. It takes key:write; the error of a caller without wraps
// ErrDenied.
func (m *Mesh) WriteKey(ctx context.Context, key string, value []byte, index uint64) (written bool, err error) {
	client, err := m.keys(key)
	if err == nil {
		m.asked("write")
		written, err = consul.PutKey(ctx, client, key, value, index)
	}
	if err != nil {
		return false, fmt.Errorf("discovery: write the key %s: %w", key, err)
	}
	return written, nil
}

// asked tells of such a question, as a watch does of its own.
func (m *Mesh) asked(op string) {
	if trace := m.root.trace.Watch; trace != nil && trace.Asked != nil {
		trace.Asked(op)
	}
}

func (m *Mesh) keys(key string) (*consul.Client, error) {
	if err := consul.CheckKey(key); err != nil {
		return nil, err
	}
	return m.asker()
}

// askerConns bounds the connections for such questions.
const askerConns = 8

// asker returns the client for such questions, which are no watch's to starve.
func (m *Mesh) asker() (*consul.Client, error) {
	m = m.root
	if m.watcher == nil {
		return nil, errNoConsul
	}
	if m.own != nil {
		return m.own, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, catalog.ErrClosed
	}
	if m.asking == nil {
		far := m.consul
		far.Datacenter, far.MaxConns = m.center, askerConns
		client, closeIdle, err := consul.Open(far)
		if err != nil {
			return nil, err
		}
		m.asking, m.closeIdle = client, append(m.closeIdle, closeIdle)
	}
	return m.asking, nil
}
