package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
)

// tell says what became of a row, for who watches.
func tell(w io.Writer, r *judge.Row) {
	switch {
	case r.NotMade != "":
		fmt.Fprintf(w, "    not made: %s\n", r.NotMade)
		return
	case r.Void != "":
		fmt.Fprintf(w, "    NO ROW: %s\n", r.Void)
		return
	}
	fmt.Fprintf(w, "    %d requests, %d failed; p50/p99 %s, %s, %s; noticed %s, recovered %s; alerts: %s\n",
		r.Requests, r.Failed, both(r.Before), both(r.During), both(r.After), notice(r), recovery(r), cmp.Or(strings.Join(r.Alerts, ", "), "none"))
	for _, line := range details(r) {
		fmt.Fprintf(w, "    %s\n", line)
	}
	for _, out := range r.Out {
		fmt.Fprintf(w, "    OUT OF BOUND: %s\n", out)
	}
	shown := 0
	for i := range r.Samples {
		if s := &r.Samples[i]; s.Failed() && shown < 5 {
			shown++
			fmt.Fprintf(w, "    failed: %s\n", s)
		}
	}
}

func both(w judge.Window) string {
	if w.Requests == 0 {
		return "-"
	}
	return fmt.Sprintf("%s / %s", judge.Round(w.P50), judge.Round(w.P99))
}

func notice(r *judge.Row) string {
	switch {
	case r.NoticeBy == "":
		return "-"
	case r.Notice == judge.Unknown:
		return "never"
	}
	return judge.Round(r.Notice).String()
}

func recovery(r *judge.Row) string {
	if r.Recover == judge.Unknown {
		return "not in time"
	}
	return judge.Round(r.Recover).String()
}

// details are what the row measured besides, and its notes.
func details(r *judge.Row) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(r.Values)) {
		out = append(out, fmt.Sprintf("%s: %.3g", name, r.Values[name]))
	}
	if r.Failed > 0 {
		failed := fmt.Sprintf("%d GETs and %d POSTs failed", r.GetsFailed, r.PostsFailed)
		if r.Bounds.Excused != nil {
			failed += fmt.Sprintf(", %d of them as the bound allows", r.Excusable)
		}
		out = append(out, failed)
	}
	return append(out, r.Notes...)
}

// machine is where and when the runs were.
type machine struct {
	began                                              time.Time
	cpu, kernel, engine, golang, commit, cores, memory string

	share  float64 // of the usual load
	serves float64 // GETs a second; 0: was not asked
}

func describe(ctx context.Context, r *rig.Rig, root string, began time.Time) machine {
	m := machine{began: began, golang: runtime.Version(), cores: strconv.Itoa(runtime.NumCPU())}
	first := func(path, prefix string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return "unknown"
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(strings.TrimLeft(rest, "\t :"))
			}
		}
		return "unknown"
	}
	m.cpu, m.memory, m.kernel = first("/proc/cpuinfo", "model name"), first("/proc/meminfo", "MemTotal"), first("/proc/sys/kernel/osrelease", "")
	if out, err := r.Docker(ctx, "version", "--format", "{{.Server.Version}}"); err == nil {
		m.engine = strings.TrimSpace(out)
	}
	if out, err := r.Run(ctx, "git", "-C", root, "describe", "--always", "--dirty"); err == nil {
		m.commit = strings.TrimSpace(out.Stdout)
	}
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %s cores, memory %s, Linux %s, Docker %s, %s, version %s, begun %s.",
		m.cpu, m.cores, m.memory, m.kernel, m.engine, m.golang, m.commit, m.began.UTC().Format("2006-01-02 15:04 UTC"))
}

// shown is the number of the run that the page shows: the last that is whole, else the first.
func shown(all [][]judge.Row) int {
	for n := len(all) - 1; n > 0; n-- {
		if len(all[n]) == len(all[0]) {
			return n
		}
	}
	return 0
}

// outcome counts the rows that could be made, and those that held.
func outcome(tables ...[]judge.Row) (held, made int) {
	for _, table := range tables {
		for i := range table {
			if table[i].NotMade == "" {
				made++
			}
			if table[i].Held() {
				held++
			}
		}
	}
	return held, made
}

// write makes the page: one run, and what became of the others.
func write(all [][]judge.Row, m machine) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Faults, measured\n\n")
	fmt.Fprintf(&b, "Written by `make faults`. %s\n\n", m)
	fmt.Fprintf(&b, "%s\nIt goes to the gateway's port, open loop, 5 s timeout, if the row does not\nsay otherwise; it came from the same machine. *Before* is %s without a fault, *during* from the fault's start until all was\nwell again, *after* %s from then on. *Noticed* counts from the fault's start, *recovered* from its end.\n", m.load(), before, after)
	fmt.Fprintf(&b, "*Alerts* are those that began to fire from the fault's start on; their windows and waits are %d times as short as in observability/prometheus.\n", haste)
	table := all[shown(all)]
	held, made := outcome(table)
	fmt.Fprintf(&b, "\n%d of %d rows held.", held, made)
	if len(all) > 1 {
		held, made := outcome(all...)
		fmt.Fprintf(&b, " This is run %d of %d; in all of them %d of %d held.", shown(all)+1, len(all), held, made)
	}
	if wrong := broken(all); len(wrong) > 0 {
		fmt.Fprintf(&b, " Out of bound: %s.", strings.Join(wrong, ", "))
	}
	b.WriteString("\n\n| fault | requests | failed | p50 / p99 before | during | after | noticed | recovered | alerts | bound | held |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for i := range table {
		line(&b, &table[i])
	}
	b.WriteString("\n")
	for i := range table {
		r := &table[i]
		lines := details(r)
		for _, out := range r.Out {
			lines = append(lines, "out of bound: "+out)
		}
		if len(lines) > 0 {
			fmt.Fprintf(&b, "- **%s**: %s.\n", r.Name, strings.Join(lines, "; "))
		}
	}
	return b.String()
}

func line(b *bytes.Buffer, r *judge.Row) {
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	name := fmt.Sprintf("[%s](%s) (`%s`)", cell(r.Title), plotName(r), r.Name)
	switch {
	case r.NotMade != "":
		fmt.Fprintf(b, "| %s (`%s`) | not made on this machine: %s | | | | | | | | %s | |\n", cell(r.Title), r.Name, cell(r.NotMade), cell(r.Bounds.Text()))
	case r.Void != "":
		fmt.Fprintf(b, "| %s (`%s`) | no row: %s | | | | | | | | %s | no |\n", cell(r.Title), r.Name, cell(r.Void), cell(r.Bounds.Text()))
	default:
		held := "yes"
		if !r.Held() {
			held = "**no**"
		}
		fmt.Fprintf(b, "| %s | %d | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", name, r.Requests, failures(r),
			both(r.Before), both(r.During), both(r.After), notice(r), recovery(r), strings.Join(r.Alerts, ", "), cell(r.Bounds.Text()), held)
	}
}

// failures are how many failed, and how many of them may.
func failures(r *judge.Row) string {
	if r.Excusable == 0 {
		return strconv.Itoa(r.Failed)
	}
	return fmt.Sprintf("%d, %d of them allowed", r.Failed, r.Excusable)
}

func plotName(r *judge.Row) string { return fmt.Sprintf("faults/%s.svg", r.Name) }

// save writes the page and its plots into a folder, in place of those of before.
func save(folder, page string, all [][]judge.Row) error {
	plots := filepath.Join(folder, "faults")
	if err := errors.Join(os.RemoveAll(plots), os.MkdirAll(plots, 0o755)); err != nil {
		return err
	}
	table := all[shown(all)]
	var errs []error
	for i := range table {
		r := &table[i]
		if r.NotMade != "" || r.Void != "" {
			continue
		}
		svg, err := picture(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("plot %s: %w", r.Name, err))
			continue
		}
		errs = append(errs, os.WriteFile(filepath.Join(folder, filepath.FromSlash(plotName(r))), svg, 0o644))
	}
	return errors.Join(append(errs, os.WriteFile(filepath.Join(folder, "faults.md"), []byte(page), 0o644))...)
}
