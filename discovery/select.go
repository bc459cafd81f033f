package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// selections returns the selection of each service; an error says what is wrong
// with one. Consul looks names up without regard to case, and so do we.
func selections(by map[string]catalog.Selection) (func(service string) catalog.Selection, error) {
	named := make(map[string]catalog.Selection, len(by))
	for service, s := range by {
		bad := func(err error) error { return fmt.Errorf("discovery: Select[%q]: %w", service, err) }
		if err := catalog.CheckService(service); err != nil {
			return nil, bad(err)
		}
		if err := s.Validate(); err != nil {
			return nil, bad(err)
		}
		lower := strings.ToLower(service)
		if _, twice := named[lower]; twice {
			return nil, bad(fmt.Errorf("is there twice; want %q once, whatever its case", lower))
		}
		named[lower] = s
	}
	return func(service string) catalog.Selection { return named[strings.ToLower(service)] }, nil
}

// Source returns the mesh's instances as a client of a protocol takes them
// (catalog.HTTP, catalog.GRPC): as Config.Select says, and where that names no
// protocol, those that speak this one. "" means those of any protocol. It is for
// clients of other protocols than the mesh's own: ask for it once and keep it.
func (m *Mesh) Source(protocol string) catalog.Source {
	return catalog.SelectBy(m.whole, func(service string) catalog.Selection {
		s := m.selection(service)
		s.Protocol = cmp.Or(s.Protocol, protocol)
		return s
	})
}

// Select returns a view of the mesh that asks the instances of this selection, in
// place of what Config.Select says: the version under trial of each service, say,
// while the mesh leaves it out. It takes part in the same watches and
// registrations, and has connections and a health of the instances of its own; so
// make it once, not for each request. The mesh closes it at the end; Close it
// before, if it is needed no longer.
func (m *Mesh) Select(s catalog.Selection) (*Mesh, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	root := m.root
	v := &Mesh{root: root, log: root.log, trace: root.trace, sending: root.sending, whole: m.whole}
	return v.begin(s)
}

// Filter returns a view of the mesh that asks the instances which an expression of
// Consul's leaves, see watch.Config.Filter: where Select can say what is meant, that
// is cheaper. Config.Select and Config.Failover do not hold in it. It watches the
// services that are asked through it by itself, eight at a time; else it is as
// Select's. An expression that Consul can't read is the trouble of each service.
func (m *Mesh) Filter(expression string) (*Mesh, error) {
	root := m.root
	if root.watcher == nil {
		return nil, errors.New("discovery: Filter needs Consul; the mesh has a Source of its own")
	}
	following := root.following
	following.Filter, following.Dir, following.MaxQueries = expression, "", filterQueries
	following.Trace, following.Log = root.trace.beside(), root.log.With("filter", expression)
	watcher, err := watch.New(following)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	first := &initial{Source: watcher, consul: root.first.consul, timeout: root.first.timeout, log: following.Log}
	v := &Mesh{root: root, log: root.log, trace: root.trace, sending: root.sending, whole: first, watcher: watcher}
	return v.begin(catalog.Selection{})
}

// filterQueries is Watch.MaxQueries of a view with a filter.
const filterQueries = 8

// begin makes the view one of its mesh's.
func (m *Mesh) begin(s catalog.Selection) (*Mesh, error) {
	if err := m.send(func(string) catalog.Selection { return s }); err != nil {
		return nil, errors.Join(err, m.closeView())
	}
	m.root.mu.Lock()
	closed := m.root.closed
	if !closed {
		m.root.views[m] = struct{}{}
	}
	m.root.mu.Unlock()
	if closed {
		return nil, errors.Join(fmt.Errorf("discovery: select: %w", catalog.ErrClosed), m.closeView())
	}
	return m, nil
}

// send makes what sends to the instances selected.
func (m *Mesh) send(selection func(service string) catalog.Selection) error {
	m.selection = selection
	m.latest = m.Source(catalog.HTTP)
	m.sending.Source, m.sending.GRPC = m.latest, m.Source(catalog.GRPC)
	var err error
	if m.transport, err = httpmesh.New(m.sending); err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	m.client = &http.Client{Transport: m.transport}
	return nil
}

// closeView ends a view.
func (m *Mesh) closeView() error {
	m.root.mu.Lock()
	delete(m.root.views, m)
	m.root.mu.Unlock()
	var errs []error
	if m.transport != nil {
		errs = append(errs, m.transport.Close())
	}
	if m.watcher != nil {
		errs = append(errs, m.watcher.Close())
	}
	return errors.Join(errs...)
}
