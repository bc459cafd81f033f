package main

import (
	"bytes"
	"encoding/json"
)

// What Grafana reads, as far as it differs from its defaults: schema 39, which Grafana 11 and newer bring up to their
// own.
type (
	page struct {
		UID         string         `json:"uid"`
		Title       string         `json:"title"`
		Description string         `json:"description"`
		Tags        []string       `json:"tags"`
		Schema      int            `json:"schemaVersion"`
		Refresh     string         `json:"refresh"`
		Time        map[string]any `json:"time"`
		Templating  map[string]any `json:"templating"`
		Links       []any          `json:"links"`
		Panels      []any          `json:"panels"`
	}
	place struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	heading struct {
		ID        int    `json:"id"`
		Type      string `json:"type"`
		Title     string `json:"title"`
		Collapsed bool   `json:"collapsed"`
		Place     place  `json:"gridPos"`
		Panels    []any  `json:"panels"`
	}
	box struct {
		ID          int            `json:"id"`
		Type        string         `json:"type"`
		Title       string         `json:"title"`
		Description string         `json:"description"`
		Source      source         `json:"datasource"`
		Place       place          `json:"gridPos"`
		Fields      map[string]any `json:"fieldConfig"`
		Options     map[string]any `json:"options"`
		Targets     []target       `json:"targets"`
	}
	source struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	target struct {
		RefID  string `json:"refId"`
		Expr   string `json:"expr"`
		Legend string `json:"legendFormat"`
	}
)

// prometheus is the data source of provisioning/datasources.
var prometheus = source{"prometheus", "prometheus"}

const (
	width        = 24 // of a page, in Grafana's units
	graphHeight  = 8
	numberHeight = 4
)

// json returns the dashboard as a file that Grafana reads.
func (d dashboard) json(name string) ([]byte, error) {
	p := page{
		UID: "rollcall-" + name, Title: d.title, Description: d.about, Tags: []string{"rollcall"}, Schema: 39, Refresh: "10s",
		Time:       map[string]any{"from": "now-30m", "to": "now"},
		Templating: map[string]any{"list": d.choices()},
		Links:      []any{map[string]any{"type": "dashboards", "title": "Rollcall", "tags": []string{"rollcall"}, "includeVars": true, "keepTime": true}},
	}
	y := 0
	for _, r := range d.rows {
		p.Panels = append(p.Panels, heading{ID: len(p.Panels) + 1, Type: "row", Title: r.title, Place: place{1, width, 0, y}, Panels: []any{}})
		y++
		w, h := width/len(r.panels), 0
		for n, one := range r.panels {
			b := one.box()
			b.ID, b.Place = len(p.Panels)+1, place{b.Place.H, w, n * w, y}
			p.Panels = append(p.Panels, b)
			h = max(h, b.Place.H)
		}
		y += h
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // for the queries' readers
	e.SetIndent("", "  ")
	err := e.Encode(p)
	return out.Bytes(), err
}

// choices are the variables, each of which takes its values anew when the page is opened.
func (d dashboard) choices() []any {
	list := []any{}
	for _, v := range d.variables {
		list = append(list, map[string]any{
			"type": "query", "name": v.name, "datasource": prometheus, "query": map[string]any{"query": v.query, "refId": v.name}, "refresh": 1, "sort": 1,
		})
	}
	return list
}

func (p panel) box() box {
	b := box{Type: "timeseries", Title: p.title, Description: p.about, Source: prometheus, Place: place{H: graphHeight}}
	custom := map[string]any{"fillOpacity": 5, "showPoints": "never"}
	if p.stacked {
		custom = map[string]any{"fillOpacity": 30, "showPoints": "never", "stacking": map[string]any{"mode": "normal"}}
	}
	b.Options = map[string]any{"legend": map[string]any{"displayMode": "list", "placement": "bottom"}, "tooltip": map[string]any{"mode": "multi", "sort": "desc"}}
	defaults := map[string]any{"unit": p.unit, "min": 0, "custom": custom}
	if p.number {
		b.Type, b.Place.H = "stat", numberHeight
		b.Options = map[string]any{"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}}, "colorMode": "none", "graphMode": "area"}
		delete(defaults, "custom")
	}
	b.Fields = map[string]any{"defaults": defaults, "overrides": []any{}}
	for n, q := range p.queries {
		b.Targets = append(b.Targets, target{string(rune('A' + n)), q.expr, q.legend})
	}
	return b
}
