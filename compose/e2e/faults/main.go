// Command faults makes one fault at a time in a fleet of its own, under steady load, and tells what it cost.
//
//	faults [-only kill-order,swap | -set short] [-runs 3] [-load 0.5] [-out folder]
//	faults -soak 30m [-seed 1] [-out folder]
//
// Each row of its table is one fault: the fleet is brought to the usual (two users, three orders, a gateway), the
// load starts (200 GETs and 20 POSTs with keys a second, at the gateway's published port, open loop), the fault is
// made and ended, and the load goes on until all is well again. Then every acknowledged order is looked for. A row
// that is out of its bounds (see bounds.go) makes the exit code 1. Some faults must have an alert fire; so that none
// needs minutes for that, the fleet's Prometheus has its rules in a hurry.
//
// What takes a machine all of its processors' time shows the machine. So the fleet is asked first how much it serves
// here, and where that is less than two and a half times the load, all loads are made smaller, and the table says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
	"github.com/rollcall-mesh/rollcall/compose/e2e/queries"
)

// haste is how many times as short the alerts' windows and waits are. With 10 those of a minute and less hold three
// scrapes, which is as short as they can be, and those of an hour fit into a row.
const haste = 10

type options struct {
	root, out, set string
	only           []string
	runs           int
	share          float64 // of the usual load; 0: as the machine bears it
	keep           bool
	soak           time.Duration
	seed           uint64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if err == nil {
		err = run(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1) //nolint:gocritic // all has been cleared up
	}
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.StringVar(&o.root, "root", "../..", "the checkout")
	only := flags.String("only", "", "names of rows, separated by commas; none: all of the set")
	flags.StringVar(&o.set, "set", "all", "all or short")
	flags.IntVar(&o.runs, "runs", 1, "how often each row is run, 1 to 10")
	flags.Float64Var(&o.share, "load", 0, "the load as a share of the usual one, 0.1 to 1; 0: as the machine bears it")
	flags.StringVar(&o.out, "out", "", "folder for the table and the plots; none: only printed")
	flags.BoolVar(&o.keep, "keep", false, "leave the fleet running at the end")
	flags.DurationVar(&o.soak, "soak", 0, "make random faults for so long instead, 15m to 2h")
	flags.Uint64Var(&o.seed, "seed", 1, "of the soak's faults")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	for name := range strings.SplitSeq(*only, ",") {
		if name = strings.TrimSpace(name); name != "" {
			o.only = append(o.only, name)
		}
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("%q is not understood; want flags only", flags.Arg(0))
	case o.set != "all" && o.set != "short":
		return o, fmt.Errorf("-set is %q; want all or short", o.set)
	case o.soak != 0 && (o.soak < 15*time.Minute || o.soak > 2*time.Hour):
		return o, fmt.Errorf("-soak is %s; want 15m to 2h", o.soak)
	case o.runs < 1 || o.runs > 10:
		return o, fmt.Errorf("-runs is %d; want 1 to 10", o.runs)
	case o.share != 0 && !(o.share >= leastShare && o.share <= 1): // NaN too
		return o, fmt.Errorf("-load is %v; want 0.1 to 1, or 0 for what the machine bears", o.share)
	}
	return o, nil
}

// chosen are the rows that were asked for, in the table's order.
func chosen(o options) ([]row, error) {
	var out []row
	for _, r := range rows {
		if slices.Contains(o.only, r.name) || len(o.only) == 0 && (o.set == "all" || r.short) {
			out = append(out, r)
		}
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.name == name }) {
			return nil, fmt.Errorf("there is no row %q; there are %s", name, strings.Join(names(), " "))
		}
	}
	return out, nil
}

func names() []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.name)
	}
	return out
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	todo, err := chosen(o)
	if err != nil {
		return err
	}
	began := time.Now()
	f, err := fleet.Prepare(ctx, fleet.Config{Root: o.root, Kind: "faults", Tags: "faults", Out: out})
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			return
		}
		clearing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err = errors.Join(err, f.Down(clearing))
	}()
	r, err := rig.New(f)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := queries.HastenFiles(filepath.Join(f.Dir, "observability", "prometheus"), haste); err != nil {
		return fmt.Errorf("make alerts %d times as quick: %w", haste, err)
	}
	fmt.Fprintf(out, "alerts look back and wait %d times as short as in observability/prometheus\n", haste)
	if err := f.Up(ctx); err != nil {
		f.Dump(ctx, out, 20)
		return err
	}
	p := &program{Rig: r, out: out, serial: began.Unix(), share: 1}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	m := describe(ctx, r, root, began)
	if o.soak > 0 {
		return p.soakTo(ctx, out, o, m)
	}
	if m.share = o.share; m.share == 0 {
		if m.serves, err = p.capacity(ctx); err != nil {
			return fmt.Errorf("find out how much the fleet serves on this machine: %w", err)
		}
		m.share = shareFor(m.serves, usualGets+usualPosts)
	}
	fmt.Fprintln(out, m.load())
	p.share, p.serves = m.share, m.serves
	return p.rowsTo(ctx, out, o, todo, m)
}

// rowsTo runs the rows, as often as was asked for, and writes what became of them.
func (p *program) rowsTo(ctx context.Context, out io.Writer, o options, todo []row, m machine) error {
	var all [][]judge.Row
	for n := range o.runs {
		all = append(all, nil)
		for _, row := range todo {
			fmt.Fprintf(out, "\n==> run %d, %s: %s\n", n+1, row.name, row.title)
			done := p.row(ctx, row, n+1)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			all[n] = append(all[n], done)
			tell(out, &done)
			if !done.Held() && done.NotMade == "" {
				p.Tell(ctx, out, done.Began, []string{"gateway", "order", "user"}, 40)
			}
			if o.out == "" {
				continue
			}
			// After each, so that a run that is broken off leaves what it has.
			if err := save(o.out, write(all, m), all); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(out, "\n%s", write(all, m))
	if o.out != "" {
		fmt.Fprintln(out, "written to", o.out)
	}
	if wrong := broken(all); len(wrong) > 0 {
		return fmt.Errorf("out of bound: %s", strings.Join(wrong, ", "))
	}
	return nil
}

// broken names the rows that did not hold.
func broken(all [][]judge.Row) []string {
	var wrong []string
	for _, table := range all {
		for i := range table {
			if r := &table[i]; !r.Held() && r.NotMade == "" {
				wrong = append(wrong, fmt.Sprintf("%s (run %d)", r.Name, r.Run))
			}
		}
	}
	return wrong
}
