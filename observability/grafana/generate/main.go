// Command generate writes the dashboards of Grafana, from what fleet.go, service.go, instance.go, consul.go and mesh.go
// say of them:
//
//	go run ./observability/grafana/generate observability/grafana/dashboards
//
// A test tells when that was forgotten. What a dashboard has is rows of panels, and a panel queries; where each stands
// and what Grafana wants to know besides is in grafana.go.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// all dashboards, by their files' names.
var all = map[string]dashboard{
	"fleet":    fleet,
	"service":  service,
	"instance": instance,
	"consul":   consul,
	"mesh":     mesh,
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "generate: want the folder to write to")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func write(folder string) error {
	for name, d := range all {
		b, err := d.json(name)
		if err != nil {
			return fmt.Errorf("dashboard %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(folder, name+".json"), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
