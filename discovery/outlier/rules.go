package outlier

// Rules are a Config that was checked. Use New; the zero Rules eject none.
type Rules struct{ cfg Config }

// New returns the rules, or an error that names every wrong setting.
func New(cfg Config) (*Rules, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	return &Rules{cfg}, nil
}

// Most returns how many of n endpoints may be out at once: never all. See
// Config.MaxEjected.
func (r *Rules) Most(n int) int {
	if r.cfg.Consecutive <= 0 || n == 0 {
		return 0
	}
	return min(n*r.cfg.MaxEjected/100, n-1)
}
