package app

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestEverySettingIsInTheReference(t *testing.T) {
	reference, err := os.ReadFile("../../../docs/reference/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(reference)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			rows[strings.Trim(cells[1], " `")] = line
		}
	}
	for field := range reflect.TypeFor[Settings]().Fields() {
		tag := field.Tag
		row := rows[tag.Get("env")]
		wanted := []string{"`--" + tag.Get("name") + "`", tag.Get("help"), tag.Get("min"), tag.Get("max")}
		if d := tag.Get("default"); !strings.HasPrefix(d, "${") {
			wanted = append(wanted, d)
		}
		for _, want := range wanted {
			if !strings.Contains(row, want) {
				t.Errorf("%s: the row is %q; want %q in it", tag.Get("env"), row, want)
			}
		}
	}
}
