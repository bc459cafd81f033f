package outcome_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	for _, code := range []outcome.Code{outcome.OK, outcome.Broken, outcome.Overload} {
		row := code.Row()
		fmt.Printf("%s proves %s; again: %s\n", code, row.Proves, row.Again)
	}
	// Output:
	// ok proves good; again: never
	// broken proves down; again: if repeatable
	// overload proves load; again: always
}

func TestEachCodeHasANameOfItsOwnThatFitsALabel(t *testing.T) {
	lowerSnake := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := map[string]outcome.Code{}
	for _, code := range outcome.Codes() {
		name := code.String()
		if !lowerSnake.MatchString(name) {
			t.Errorf("code %d: got the name %q; want words of lower case letters, joined by _", code, name)
		}
		if other, taken := seen[name]; taken {
			t.Errorf("codes %d and %d: got %q for both; want a name of its own for each", other, code, name)
		}
		seen[name] = code
		if text, err := code.MarshalText(); string(text) != name || err != nil {
			t.Errorf("%s: got %q, %v as text; want the name", name, text, err)
		}
		if code.Row().When == "" {
			t.Errorf("%s: got no word on when; want what happened", name)
		}
	}
	if len(seen) < 22 {
		t.Errorf("got %d codes; want 22 or more", len(seen))
	}
}

func TestWhatIsNoCodeProvesNothingAndIsNotTriedAgain(t *testing.T) {
	for _, code := range []outcome.Code{outcome.None, outcome.Code(len(outcome.Codes()) + 1), 255} {
		if row := code.Row(); row != (outcome.Row{}) {
			t.Errorf("code %d: got %+v; want the zero Row", code, row)
		}
	}
	if row := (outcome.Row{}); row.Proves != outcome.Nothing || row.Again != outcome.Never {
		t.Errorf("got %v and %v in the zero Row; want nothing and never", row.Proves, row.Again)
	}
}

// Else a failure would be paid for that is not tried again, or an instance
// blamed for what is not its own.
func TestRowsOfTheTableAgreeWithThemselves(t *testing.T) {
	for _, code := range outcome.Codes() {
		row := code.Row()
		if row.Costs && row.Again == outcome.Never {
			t.Errorf("%s: costs budget and is never tried again", code)
		}
		if row.Proves == outcome.Good && row.Again != outcome.Never {
			t.Errorf("%s: a good answer is tried again", code)
		}
		if row.Again == outcome.IfRepeatable && !row.Costs {
			t.Errorf("%s: the instance may have worked on it, and another try costs nothing", code)
		}
	}
}

func TestRequestHasFailedItsCallerUnlessItGotAnAnswerOrIsAtFaultItself(t *testing.T) {
	fine := []outcome.Code{outcome.OK, outcome.Busy, outcome.Canceled, outcome.CallerError}
	for _, code := range outcome.Codes() {
		if got, want := code.Failed(), !slices.Contains(fine, code); got != want {
			t.Errorf("%s: failed is %v; want %v", code, got, want)
		}
	}
	if outcome.None.Failed() {
		t.Error("what has not ended has failed")
	}
}

const page = "../../docs/explanation/choosing.md"

// cells returns the cells of a line of a markdown table; nil if it is none.
func cells(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") || !strings.HasSuffix(line, "|") || len(line) < 2 {
		return nil
	}
	found := strings.Split(line[1:len(line)-1], "|")
	for i := range found {
		found[i] = strings.TrimSpace(found[i])
	}
	return found
}

func TestTheDocsShowTheTable(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	columns := []string{"outcome", "what happened", "proves", "tried again", "from the budget"}
	lines := strings.Split(string(text), "\n")
	first := -1 // the line of the first row
	for n, line := range lines {
		if strings.Join(cells(line), "|") == strings.Join(columns, "|") {
			first = n + 2 // a line of dashes follows
		}
	}
	if first < 0 {
		t.Fatalf("%s has no table with the columns | %s |", page, strings.Join(columns, " | "))
	}
	var shown [][]string
	for n := first; n < len(lines) && cells(lines[n]) != nil; n++ {
		shown = append(shown, cells(lines[n]))
	}
	codes := outcome.Codes()
	if len(shown) != len(codes) {
		t.Errorf("got %d rows; want %d, one for each code", len(shown), len(codes))
	}
	for n, code := range codes[:min(len(codes), len(shown))] {
		row, costs := code.Row(), "no"
		if row.Costs {
			costs = "yes"
		}
		want := []string{"`" + row.Name + "`", row.When, row.Proves.String(), row.Again.String(), costs}
		if len(shown[n]) != len(want) {
			t.Errorf("line %d: got %d cells; want %d", first+n+1, len(shown[n]), len(want))
			continue
		}
		for i, cell := range shown[n] {
			if cell != want[i] {
				t.Errorf("line %d, %s: got %q; want %q", first+n+1, columns[i], cell, want[i])
			}
		}
	}
}
