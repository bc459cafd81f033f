package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall/internal/doctor"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

type doctorCmd struct {
	Services   []string `arg:"" optional:"" name:"service" help:"Services to look at. None: all."`
	DNS        string   `name:"dns" placeholder:"HOST:PORT" help:"Consul's DNS. Empty: where the agent says it is."`
	Prometheus string   `placeholder:"URL" help:"Prometheus. Empty: the instance of the service prometheus in the catalog, if there is one."`
	Output     string   `short:"o" enum:"table,json,yaml" default:"table" help:"Form: ${enum}."`
}

// Help is shown by --help.
func (*doctorCmd) Help() string {
	return `Looks for what is wrong between this host and the others, and says what to do about each
thing: whether Consul answers, has a leader, is one agent, on this host, and not too old; which
rights the token lacks; whether each registered address answers, and as what it is registered;
IDs and addresses that are there twice, entries that nobody stands behind, loopback addresses;
Consul's DNS; and whether Prometheus scrapes what wants it.

It changes nothing. To each address of HTTP it sends one GET /. Addresses are seen from here: run
it where the callers are. Exit code 1 says that something is to mend, 3 that Consul can't be
asked.

Examples:

    rollcall doctor
    rollcall doctor order user --prometheus http://localhost:9090 -o json`
}

// diagnosis is what -o json prints.
type diagnosis struct {
	Version  int              `json:"version"`
	Findings []doctor.Finding `json:"findings"`
}

// diagnosisVersion is that of the form of diagnosis.
const diagnosisVersion = 1

// Run examines.
func (c *doctorCmd) Run(ctx context.Context, s *session) error {
	if err := c.validate(); err != nil {
		return &exitError{exitUsage, err}
	}
	where := consul.Config{}
	cfg := doctor.Config{
		Client: s.consul, Address: where.String(), HostPort: where.HostPort(),
		Fresh: func() (*api.Client, func(), error) {
			return consul.Open(consul.Config{Datacenter: s.mesh.Consul.Datacenter, MaxConns: 1})
		},
		Services: c.Services, DNS: c.DNS, Prometheus: c.Prometheus,
	}
	asText := c.Output == "table"
	printed := report{s: s}
	if asText {
		cfg.Tell = func(f doctor.Finding) {
			if ctx.Err() == nil { // else it was found by the interrupt
				printed.tell(f)
			}
		}
	}
	findings := doctor.Examine(ctx, cfg)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if asText {
		printed.end()
		tellSum(s, findings)
	} else if _, err := (form{c.Output}).document(s, diagnosis{diagnosisVersion, findings}); err != nil {
		return err
	}
	switch {
	case doctor.NoConsul(findings):
		return &exitError{code: exitNoConsul}
	case doctor.Worst(findings) == doctor.Failure:
		return &exitError{code: exitNo}
	}
	return nil
}

func (c *doctorCmd) validate() error {
	for _, service := range c.Services {
		if err := catalog.CheckService(service); err != nil {
			return err
		}
	}
	if c.DNS != "" {
		if _, _, err := net.SplitHostPort(c.DNS); err != nil {
			return fmt.Errorf("--dns is %q; want HOST:PORT", c.DNS)
		}
	}
	if c.Prometheus != "" {
		if u, err := url.Parse(c.Prometheus); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("--prometheus is %q; want a URL of http or https", c.Prometheus)
		}
	}
	return nil
}

// The columns of a finding.
const levelColumn, checkColumn = 6, 12

// mostAlike is how many findings are told that are mended in the same way. JSON has all.
const mostAlike = 3

// report prints findings as they come. Those in a row that are mended in the same way have
// one remedy below them.
type report struct {
	s     *session
	last  doctor.Finding // whose remedy is not printed yet
	alike int            // in a row; 0: there is none
}

func (t *report) tell(f doctor.Finding) {
	same := t.alike > 0 && f.Remedy != "" && f.Remedy == t.last.Remedy && f.Check == t.last.Check && f.Level == t.last.Level
	if !same {
		t.end()
	}
	t.last, t.alike = f, t.alike+1
	if t.alike > mostAlike {
		return
	}
	word := f.Level.String()
	fmt.Fprint(t.s.out, painted(t.s, word, strings.Repeat(" ", levelColumn-len(word))))
	for n, line := range wrapped(t.s.width-levelColumn-checkColumn, clean(f.Says)) {
		if n == 0 {
			fmt.Fprintf(t.s.out, "%-*s%s\n", checkColumn, f.Check, line)
		} else {
			t.below(line)
		}
	}
}

// end prints what is left to say of the findings so far.
func (t *report) end() {
	if t.alike > mostAlike {
		t.below(fmt.Sprintf("and %d more", t.alike-mostAlike))
	}
	if t.last.Remedy != "" {
		const arrow = "→ "
		for n, line := range wrapped(t.s.width-levelColumn-checkColumn-utf8.RuneCountInString(arrow), clean(t.last.Remedy)) {
			if n == 0 {
				t.below(arrow + line)
			} else {
				t.below("  " + line)
			}
		}
	}
	t.last, t.alike = doctor.Finding{}, 0
}

func (t *report) below(line string) {
	fmt.Fprintf(t.s.out, "%*s%s\n", levelColumn+checkColumn, "", line)
}

// tellSum prints how many findings of each level there are.
func tellSum(s *session, findings []doctor.Finding) {
	counts := map[doctor.Level]int{}
	for _, f := range findings {
		counts[f.Level]++
	}
	fmt.Fprintf(s.out, "\n%d fail, %d warn, %d note, %d ok\n", counts[doctor.Failure], counts[doctor.Warning], counts[doctor.Note], counts[doctor.OK])
}

// leastWrapped is how many columns a text gets, however narrow the terminal is.
const leastWrapped = 30

// wrapped is a text in lines of so many columns; a width below 1 means that there is no
// limit.
func wrapped(width int, text string) []string {
	if width < 1 {
		return []string{text}
	}
	width = max(width, leastWrapped)
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
