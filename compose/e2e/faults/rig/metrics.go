package rig

import (
	"context"
	"net/http"
	"strconv"
	"strings"
)

// Metrics are the series of one scrape.
type Metrics []Series

// Series is one of them: its name with its labels as they were written, and its value.
type Series struct {
	Name, Labels string
	Value        float64
}

// Metrics scrapes the admin port at a URL.
func (r *Rig) Metrics(ctx context.Context, admin string) (Metrics, error) {
	a, err := r.Want(ctx, http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	return parse(string(a.Body)), nil
}

// parse reads the text format, as far as our own services write it. What it does not understand it leaves out.
func parse(text string) Metrics {
	var m Metrics
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var s Series
		rest := line
		if open, end := strings.IndexByte(line, '{'), strings.LastIndexByte(line, '}'); open > 0 && end > open {
			s.Name, s.Labels, rest = line[:open], line[open+1:end], line[end+1:]
		} else {
			s.Name, rest, _ = strings.Cut(line, " ")
		}
		value, _, _ := strings.Cut(strings.TrimSpace(rest), " ") // a time may follow
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		s.Value = v
		m = append(m, s)
	}
	return m
}

// Sum of the series of a name that have all these labels, each written name="value".
func (m Metrics) Sum(name string, labels ...string) float64 {
	sum := 0.0
	for _, s := range m {
		if s.Name == name && s.has(labels) {
			sum += s.Value
		}
	}
	return sum
}

// Has reports whether there is a series of that name.
func (m Metrics) Has(name string) bool {
	for _, s := range m {
		if s.Name == name {
			return true
		}
	}
	return false
}

func (s Series) has(labels []string) bool {
	for _, l := range labels {
		if !strings.Contains(","+s.Labels+",", ","+l+",") {
			return false
		}
	}
	return true
}

// Label is the value of one label; "" if it has none.
func (s Series) Label(name string) string {
	_, rest, ok := strings.Cut(","+s.Labels, ","+name+`="`)
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
