package main

// dashboard is one page.
type dashboard struct {
	title, about string
	variables    []variable
	rows         []row
}

// variable is chosen at the top of the page.
type variable struct {
	name  string
	query string // of Prometheus' values: label_values(…)
}

// row of panels under a heading, of equal width.
type row struct {
	title  string
	panels []panel
}

// panel is a graph, unless it is a number.
type panel struct {
	title string
	// about says what it shows, in a sentence. "Empty unless …" says when there is something to see, of a panel that
	// has no data in good times.
	about   string
	unit    string // one of Grafana's
	number  bool   // the last value in large, in place of a graph
	stacked bool
	queries []query
}

// query of Prometheus, and what its series are called, by their labels.
type query struct{ expr, legend string }

// The units that are used.
const (
	perSecond = "reqps"
	events    = "ops" // of what is no request, a second
	seconds   = "s"
	millis    = "ms"
	share     = "percentunit"
	memory    = "bytes"
	count     = "short"
	times     = "none"
	days      = "d"
)

func graph(title, unit, about string, queries ...query) panel {
	return panel{title: title, unit: unit, about: about, queries: queries}
}

func stacked(title, unit, about string, queries ...query) panel {
	return panel{title: title, unit: unit, about: about, queries: queries, stacked: true}
}

func number(title, unit, about, expr string) panel {
	return panel{title: title, unit: unit, about: about, number: true, queries: []query{{expr, ""}}}
}
