package watch

import (
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// tellMissing logs what has gone missing since the last set, what is back, and
// what is given up: its time is over, or its ID or address is another's now.
func (u *inUse) tellMissing(last []catalog.Instance, now time.Time) {
	was, is := missing(last), missing(u.set)
	if len(was)+len(is) == 0 {
		return
	}
	log := u.cfg.Log.With("service", u.service)
	have := keys(u.set)
	var gone, back, lost []catalog.Instance
	for key, i := range is {
		if _, before := was[key]; !before {
			gone = append(gone, i)
		}
	}
	for key, i := range was {
		switch _, still := is[key]; {
		case still:
		case have[key]:
			back = append(back, i)
		default:
			lost = append(lost, i)
		}
	}
	if len(gone) > 0 {
		log.Warn("instances missing: they vanished from Consul in good health and stay in use for a while",
			"instances", names(gone), "count", len(gone), "for", gone[0].MissingUntil.Sub(now).Round(time.Second), "left", len(u.set)-len(is))
	}
	if len(back) > 0 {
		log.Info("missing instances are back", "instances", names(back), "count", len(back))
	}
	if len(lost) > 0 {
		log.Warn("missing instances given up", "instances", names(lost), "count", len(lost), "left", len(u.set))
	}
}

func missing(set []catalog.Instance) map[catalog.Key]catalog.Instance {
	var out map[catalog.Key]catalog.Instance
	for _, i := range set {
		if i.Missing() {
			if out == nil {
				out = map[catalog.Key]catalog.Instance{}
			}
			out[i.Key()] = i
		}
	}
	return out
}

// names returns the IDs of the first few, in order: a line of the log is no
// list of a fleet.
func names(set []catalog.Instance) string {
	const most = 10
	sortSet(set)
	var ids []string
	for _, i := range set[:min(most, len(set))] {
		ids = append(ids, i.ID)
	}
	if len(set) > most {
		ids = append(ids, "…")
	}
	return strings.Join(ids, " ")
}
