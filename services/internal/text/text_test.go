package text

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheckTakesWhatPeopleWrite(t *testing.T) {
	for _, value := range []string{
		"a", "Dave", " Dave ", "D'Arcy \"<&>\"", "Zoë", "李小龙", "Zoe\u0308", "👩‍👩‍👧", "שלום", "a\u202eb", "\u00a0x",
		strings.Repeat("x", MaxLength), strings.Repeat("é", MaxLength), strings.Repeat("𝄞", MaxLength),
	} {
		if err := Check("name", value); err != nil {
			t.Errorf("Check(%q) = %v; want nil", value, err)
		}
	}
}

func TestCheckRefusesAndSaysWhy(t *testing.T) {
	for value, why := range map[string]string{
		"":                               "is empty",
		" ":                              "is blank",
		"\u00a0\u3000":                   "is blank",
		"\u2028":                         "is blank",
		"\u200b\u200d":                   "is blank",
		"\t":                             "U+0009",
		"a\nb":                           "U+000A as its character 2",
		"éé\x00":                         "U+0000 as its character 3",
		"\x7f":                           "U+007F",
		"\u0085":                         "U+0085",
		"a\ufffd":                        "U+FFFD as its character 2",
		"\xff":                           "is not UTF-8",
		"a\xed\xa0\x80":                  "is not UTF-8",
		strings.Repeat("é", MaxLength+1): "is 201 characters long; want 1 to 200",
	} {
		err := Check("name", value)
		invalid, ok := errors.AsType[*InvalidError](err)
		if !ok || invalid.Field != "name" || !strings.Contains(err.Error(), why) || !strings.HasPrefix(err.Error(), "name ") {
			t.Errorf("Check(%q) = %v; want one for name that says %q", value, err, why)
		}
	}
}

func ExampleCheck() {
	fmt.Println(Check("name", "Dave"))
	fmt.Println(Check("name", ""))
	// Output:
	// <nil>
	// name is empty; want 1 to 200 characters
}
