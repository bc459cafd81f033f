package outlier

import "github.com/rollcall-mesh/rollcall/discovery/balancer"

// Judge is a balancer.Judge. Use New.
type Judge struct{ cfg Config }

// New returns a Judge, or an error that names every wrong setting.
func New(cfg Config) (*Judge, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	return &Judge{cfg}, nil
}

// Record begins the record of an endpoint.
func (j *Judge) Record() balancer.Record { return &record{cfg: &j.cfg} }

// Most returns how many of n endpoints may be out at once; see
// Config.MaxEjected.
func (j *Judge) Most(n int) int {
	if j.cfg.Consecutive < 0 {
		return 0
	}
	return n * j.cfg.MaxEjected / 100
}
