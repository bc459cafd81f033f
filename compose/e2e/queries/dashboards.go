package queries

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Query is one of a dashboard's panel.
type Query struct {
	Dashboard string // its file's name, without .json
	Panel     string
	About     string // the panel's description
	Expr      string // with the dashboard's variables in it
}

// Excused reports whether the panel says that it may be empty in good times, and when it is not: its description
// begins with "Empty unless".
func (q Query) Excused() bool { return strings.HasPrefix(q.About, "Empty unless ") }

// With returns the query with values in place of the variables.
func (q Query) With(values map[string]string) string {
	expr := q.Expr
	for name, value := range values {
		expr = strings.ReplaceAll(expr, "$"+name, value)
	}
	return expr
}

// Dashboards returns the queries of all panels of the dashboards in a folder.
func Dashboards(folder string) ([]Query, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []Query
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var d struct {
			Panels []struct {
				Title, Description string
				Targets            []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(b, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				all = append(all, Query{strings.TrimSuffix(filepath.Base(file), ".json"), p.Title, p.Description, target.Expr})
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: there is no dashboard with a query", folder)
	}
	return all, nil
}
