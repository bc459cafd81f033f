package outlier_test

import (
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

func TestWrongSettingsAreNamedAllAtOnce(t *testing.T) {
	for _, c := range []struct {
		cfg  outlier.Config
		want string
	}{
		{outlier.Config{}, ""},
		{outlier.Config{Consecutive: -1, ConsecutiveGateway: -1, MaxEjected: 100}, ""},
		{outlier.Config{Ejection: time.Minute}, ""},
		{outlier.Config{MaxEjected: 140}, "outlier: MaxEjected is 140; want 0 to 100"},
		{
			outlier.Config{MaxEjected: -1, Ejection: -time.Second, Probation: -2},
			"outlier: MaxEjected is -1; want 0 to 100\n" +
				"outlier: Ejection is -1s; want more than 0, or 0 for the default\n" +
				"outlier: Probation is -2; want more than 0, or 0 for the default",
		},
		{outlier.Config{MaxEjection: time.Second}, "outlier: MaxEjection is 1s; want at least Ejection, which is 2s"},
	} {
		_, err := outlier.New(c.cfg)
		if got := text(err); got != c.want {
			t.Errorf("%+v: got %q; want %q", c.cfg, got, c.want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestMostIsAShareRoundedDownAndNeverAll(t *testing.T) {
	for _, c := range []struct{ percent, n, want int }{
		{0, 1, 0}, {0, 2, 1}, {0, 3, 1}, {0, 4, 2}, {0, 5, 2}, {10, 3, 0}, {10, 10, 1}, {100, 1, 0}, {100, 3, 2}, {99, 3, 2}, {100, 0, 0},
	} {
		rules, err := outlier.New(outlier.Config{MaxEjected: c.percent})
		if err != nil {
			t.Fatal(err)
		}
		if got := rules.Most(c.n); got != c.want {
			t.Errorf("%d %% of %d: got %d; want %d", c.percent, c.n, got, c.want)
		}
	}
	off, err := outlier.New(outlier.Config{Consecutive: -1, MaxEjected: 100})
	if err != nil {
		t.Fatal(err)
	}
	for name, rules := range map[string]*outlier.Rules{"switched off": off, "zero": new(outlier.Rules)} {
		if got := rules.Most(10); got != 0 {
			t.Errorf("%s: got %d; want 0", name, got)
		}
	}
}
