package meshview

import (
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kinds of an instance in the order of the legend.
var kinds = []string{"passing", "new", "warning", "draining", "maintenance", "critical", "out", "missing", "silent"}

// kind tells which one mark an instance gets: what keeps requests away comes first.
// Like all that follows, assets/words.js says the same.
func kind(i Instance) string {
	switch {
	case i.Missing:
		return "missing"
	case len(i.Out) > 0:
		return "out"
	case i.State != "passing" && slices.Contains(kinds, i.State):
		return i.State
	case i.State != "passing":
		return "critical"
	case !i.Answered && i.Trouble != "":
		return "silent"
	case i.New:
		return "new"
	}
	return "passing"
}

// words for a kind, or for that of an instance.
func words(of any) string {
	name, ok := of.(string)
	if i, instance := of.(Instance); instance {
		name, ok = kind(i), true
	}
	switch {
	case !ok:
		return ""
	case name == "maintenance":
		return "in maintenance"
	case name == "out":
		return "out of use"
	case name == "silent":
		return "does not answer"
	}
	return name
}

// mark is the sign of a kind, or of that of an instance. Nothing of the mesh is in it.
func mark(of any) template.HTML {
	name, _ := of.(string)
	if i, instance := of.(Instance); instance {
		name = kind(i)
	}
	if !slices.Contains(kinds, name) {
		return ""
	}
	return template.HTML(`<svg class="mark k-` + name + `" viewBox="0 0 12 12" aria-hidden="true"><use href="#mark-` + name + `"/></svg>`)
}

// reasons say why an instance has that kind; empty where there is nothing to say.
func reasons(i Instance) string {
	const some = 2 // that have it out are named in one line
	var all []string
	for _, out := range i.Out[:min(some, len(i.Out))] {
		all = append(all, out.By+": "+out.Reason)
	}
	if more := max(i.OutBy, len(i.Out)) - some; more > 0 {
		all = append(all, strconv.Itoa(more)+" more")
	}
	if i.Reason != "" {
		all = append(all, i.Reason)
	}
	if !i.Answered && i.Trouble != "" {
		all = append(all, i.Trouble)
	}
	return strings.Join(all, " · ")
}

const space = "\u00a0" // a number and its unit stay together

func rate(perSecond float64) string {
	switch {
	case !(perSecond > 0):
		return "0/s"
	case perSecond < 0.05:
		return "<0.1/s"
	case perSecond < 10:
		return fixed(perSecond, 1) + "/s"
	case perSecond < 10000:
		return whole(perSecond) + "/s"
	}
	return fixed(perSecond/1000, 1) + "k/s"
}

func share(part, all float64) string {
	if !(all > 0) || !(part > 0) {
		return "0" + space + "%"
	}
	switch percent := 100 * part / all; {
	case percent < 0.1:
		return "<0.1" + space + "%"
	case percent < 10:
		return fixed(percent, 1) + space + "%"
	default:
		return whole(percent) + space + "%"
	}
}

func duration(d time.Duration) string {
	switch s := d.Seconds(); {
	case s <= 0:
		return "–"
	case s < 0.001:
		return whole(s*1e6) + space + "µs"
	case s < 0.01:
		return fixed(s*1000, 1) + space + "ms"
	case s < 1:
		return whole(s*1000) + space + "ms"
	case s < 10:
		return fixed(s, 1) + space + "s"
	case s < 120:
		return whole(s) + space + "s"
	case s < 2*3600:
		return whole(s/60) + space + "min"
	case s < 2*86400:
		return whole(s/3600) + space + "h"
	default:
		return whole(s/86400) + space + "d"
	}
}

func fixed(x float64, digits int) string { return strconv.FormatFloat(x, 'f', digits, 64) }

func whole(x float64) string { return fixed(math.Round(x), 0) }
