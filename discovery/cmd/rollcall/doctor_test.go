package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall/internal/doctor"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestDoctorPrintsWhatItFoundAndHowToMendIt(t *testing.T) {
	const heard = "see whether it runs and listens at that address, not at a loopback alone"
	findings := []doctor.Finding{
		{Check: "consul", Level: doctor.OK, Says: "answers at http://127.0.0.1:8500 in 1ms"},
		{Check: "addresses", Level: doctor.Failure, Says: "order/order-1 at 10.0.0.1:8080 takes no connection (connect: connection refused), and Consul says passing", Remedy: heard},
		{Check: "addresses", Level: doctor.Failure, Says: "order/order-2 takes no connection", Remedy: heard},
		{Check: "addresses", Level: doctor.Failure, Says: "order/order-3 takes no connection", Remedy: heard},
		{Check: "addresses", Level: doctor.Failure, Says: "order/order-4 takes no connection", Remedy: heard},
		{Check: "addresses", Level: doctor.Failure, Says: "order/order-5 takes no connection", Remedy: heard},
		{Check: "addresses", Level: doctor.Warning, Says: "order/order-6 takes no connection", Remedy: heard},
		{Check: "addresses", Level: doctor.OK, Says: "0 of 6"},
		{Check: "versions", Level: doctor.Note, Says: "a \x1b[31mred\x1b[0m name", Remedy: "none"},
	}
	var out bytes.Buffer
	s := sessionOf(nil, &out)
	s.width = 80
	printed := report{s: s}
	for _, f := range findings {
		printed.tell(f)
	}
	printed.end()
	tellSum(s, findings)
	golden(t, "doctor", out.String())
	for line := range strings.Lines(out.String()) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
			t.Errorf("%q has %d columns; want 80", line, n)
		}
	}
	out.Reset()
	s.width = 0
	printed.tell(findings[1])
	printed.end()
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("got %d lines where there is no width; want the finding and its remedy:\n%s", n, out.String())
	}
}

func TestDoctorExitsByTheWorstThatItFound(t *testing.T) {
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_ADDR", address)
	if got := rollcall(t, "doctor"); got.code != 0 || !strings.Contains(got.out, "warn  services") || !strings.Contains(got.out, "\n0 fail, 1 warn, ") {
		t.Errorf("got the exit code %d and\n%s%s\nof an empty Consul; want 0 and a warning", got.code, got.out, got.errs)
	}
	err = agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "order-1", Name: "order", Address: "127.0.0.1", Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	got := rollcall(t, "doctor", "order")
	if got.code != exitNo || got.errs != "" || !strings.Contains(got.out, "fail  addresses") || !strings.Contains(got.out, "→ ") {
		t.Errorf("got the exit code %d and\n%s%s\nwith nothing at an address; want %d and a remedy", got.code, got.out, got.errs, exitNo)
	}
	var d struct {
		Version  int
		Findings []struct{ Check, Level, Says, Remedy string }
	}
	got = rollcall(t, "doctor", "order", "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &d); err != nil || got.code != exitNo || d.Version != diagnosisVersion {
		t.Fatalf("got the exit code %d, %v and\n%s", got.code, err, got.out)
	}
	worst := 0
	for _, f := range d.Findings {
		if f.Level == "fail" && f.Check == "addresses" && strings.Contains(f.Says, "127.0.0.1:1") && f.Remedy != "" {
			worst++
		}
	}
	if worst != 1 {
		t.Errorf("got %+v in JSON; want the address once", d)
	}
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	if got := rollcall(t, "doctor"); got.code != exitNoConsul || !strings.Contains(got.out, "fail  consul") {
		t.Errorf("got the exit code %d and\n%s\nwithout a Consul; want %d", got.code, got.out, exitNoConsul)
	}
}

func TestDoctorSaysNothingOfWhatAnInterruptBroke(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"doctor"}, strings.NewReader(""), &out, &errs); code != exitInterrupted || out.Len() > 0 {
		t.Errorf("got the exit code %d and %q; want %d and nothing", code, out.String(), exitInterrupted)
	}
}

func TestDoctorNamesAWrongFlag(t *testing.T) {
	for _, words := range [][]string{
		{"doctor", "a b"},
		{"doctor", "--dns", "localhost"},
		{"doctor", "--prometheus", "localhost:9090"},
		{"doctor", "-o", "xml"},
	} {
		if got := rollcall(t, words...); got.code != exitUsage || !strings.HasPrefix(got.errs, "rollcall: ") {
			t.Errorf("%v: got the exit code %d and %q; want %d and what is wrong", words, got.code, got.errs, exitUsage)
		}
	}
}
