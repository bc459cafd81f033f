package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// fileVersion is of the format of a file; one of another version is ignored.
const fileVersion = 1

// fileSet and fileInstance are the format.
type fileSet struct {
	Version   int            `json:"version"`
	Service   string         `json:"service"`
	Since     time.Time      `json:"since"`
	Proven    time.Time      `json:"proven"`
	Instances []fileInstance `json:"instances"`
}

type fileInstance struct {
	ID           string            `json:"id"`
	Kind         string            `json:"kind,omitempty"`
	Node         string            `json:"node"`
	Host         string            `json:"host"`
	Port         int               `json:"port"`
	Tags         []string          `json:"tags,omitempty"`
	Meta         map[string]string `json:"meta,omitempty"`
	Weight       int               `json:"weight"`
	Region       string            `json:"region,omitempty"`
	Zone         string            `json:"zone,omitempty"`
	State        string            `json:"state"`
	Reason       string            `json:"reason,omitempty"`
	MissingUntil time.Time         `json:"missing_until,omitzero"`
}

func (r *record) encode() ([]byte, error) {
	f := fileSet{Version: fileVersion, Service: r.service, Since: r.since, Proven: r.proven, Instances: make([]fileInstance, 0, len(r.set))}
	for _, i := range r.set {
		f.Instances = append(f.Instances, fileInstance{
			ID: i.ID, Kind: i.Kind, Node: i.Node, Host: i.Host, Port: i.Port, Tags: i.Tags, Meta: i.Meta, Weight: i.Weight,
			Region: i.Region, Zone: i.Zone, State: i.State.String(), Reason: i.Reason, MissingUntil: i.MissingUntil,
		})
	}
	return json.Marshal(f)
}

// decodeRecord reads a file about the service and says what is wrong with it.
// It believes nothing that it did not check: an instance that could not come
// from Consul spoils the file, for we never wrote one. The missing whose time
// is over are left out; at least one instance is left.
func decodeRecord(service string, in io.Reader, now time.Time) (*record, error) {
	var f fileSet
	d := json.NewDecoder(io.LimitReader(in, maxFile))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("is no snapshot: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("goes on after its end")
	}
	// A clock that was set back between then and now makes every age in the
	// file meaningless. A little is what clocks of two machines differ by.
	const skew = time.Minute
	switch {
	case f.Version != fileVersion:
		return nil, fmt.Errorf("has version %d; want %d", f.Version, fileVersion)
	case f.Service != service:
		return nil, fmt.Errorf("is about %.80q; want %q", f.Service, service)
	case f.Proven.After(now.Add(skew)) || f.Since.After(now.Add(skew)):
		return nil, fmt.Errorf("is from the future: proven %s, since %s", f.Proven.Format(time.RFC3339), f.Since.Format(time.RFC3339))
	}
	r := &record{service: service, since: here(f.Since, now), proven: here(f.Proven, now)}
	seen := make(map[catalog.Key]bool, len(f.Instances))
	for _, stored := range f.Instances {
		i, err := stored.instance(service)
		if err != nil {
			return nil, err
		}
		if seen[i.Key()] {
			return nil, fmt.Errorf("has %q twice", i.ID)
		}
		seen[i.Key()] = true
		if i.Missing() {
			if !now.Before(i.MissingUntil) {
				continue
			}
			i.MissingUntil = now.Add(i.MissingUntil.Sub(now))
		}
		r.set = append(r.set, i)
	}
	if len(r.set) == 0 {
		return nil, errors.New("has no instance that could be used still")
	}
	sortSet(r.set)
	return r, nil
}

// here returns a time of the file as one of this process: with a reading of its
// monotonic clock, so that no jump of the wall clock moves it, and not later
// than now.
func here(t, now time.Time) time.Time { return now.Add(-max(0, now.Sub(t))) }

func (f fileInstance) instance(service string) (catalog.Instance, error) {
	i := catalog.Instance{
		ID: f.ID, Kind: f.Kind, Service: service, Node: f.Node, Host: f.Host, Port: f.Port, Tags: f.Tags, Meta: f.Meta, Weight: f.Weight,
		Region: f.Region, Zone: f.Zone, Reason: clip(f.Reason), MissingUntil: f.MissingUntil,
	}
	for _, s := range catalog.States {
		if s.String() == f.State {
			i.State = s
		}
	}
	if i.State == catalog.StateUnknown {
		return i, fmt.Errorf("has the state %.80q; want one of %v", f.State, catalog.States)
	}
	return i, i.Validate()
}
