// Package queries reads what the project asks of Prometheus, its rules and its dashboards: for the tests that hold them
// to what there is, and for the faults, which want the rules in a hurry.
package queries

import (
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// Rule is one that records a series, or an alert.
type Rule struct {
	Record      string
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

// Files returns the names of the rule files of the Prometheus whose configuration lies in a folder.
func Files(folder string) ([]string, error) {
	var config struct {
		Files []string `yaml:"rule_files"`
	}
	if err := decode(filepath.Join(folder, "prometheus.yml"), &config); err != nil {
		return nil, err
	}
	if len(config.Files) == 0 {
		return nil, fmt.Errorf("%s/prometheus.yml has no rule_files", folder)
	}
	return config.Files, nil
}

// Rules returns those of the rule files there, in their order.
func Rules(folder string) ([]Rule, error) {
	files, err := Files(folder)
	if err != nil {
		return nil, err
	}
	var all []Rule
	for _, file := range files {
		var content struct {
			Groups []struct{ Rules []Rule }
		}
		if err := decode(filepath.Join(folder, file), &content); err != nil {
			return nil, err
		}
		for _, g := range content.Groups {
			all = append(all, g.Rules...)
		}
	}
	return all, nil
}

func decode(file string, to any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
