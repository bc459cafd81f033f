package queries

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	shortestWindow   = 15 * time.Second // holds three scrapes, 5 s apart, which a rate needs
	shortestInterval = time.Second      // between evaluations, for their price
)

var lasting = regexp.MustCompile(`(?m)(^\s+(?:for|interval|evaluation_interval): |\[|\boffset )([0-9]+)([smhd])\b`)

// Hasten divides each time in the text of a rule file by the factor: how long an alert waits, how often rules are
// evaluated (at most each second), and the windows of the queries, none of which becomes shorter than 15 s, or than it
// was. Names of recorded series and words stay as they are.
func Hasten(rules string, factor int) string {
	return lasting.ReplaceAllStringFunc(rules, func(text string) string {
		m := lasting.FindStringSubmatch(text)
		was := duration(m[2], m[3])
		now := was / time.Duration(factor)
		switch {
		case m[1] == "[" || m[1] == "offset ":
			now = max(now, min(shortestWindow, was))
		case strings.HasSuffix(m[1], "interval: "):
			now = max(now, min(shortestInterval, was))
		}
		return fmt.Sprintf("%s%dms", m[1], now.Milliseconds())
	})
}

func duration(number, unit string) time.Duration {
	n, _ := strconv.Atoi(number) // digits, as matched
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	return time.Duration(n) * units[unit]
}

// HastenFiles does so with the rule files of the Prometheus whose configuration lies in a folder, and with how often
// that evaluates them.
func HastenFiles(folder string, factor int) error {
	files, err := Files(folder)
	if err != nil {
		return err
	}
	for _, file := range append(files, "prometheus.yml") {
		path := filepath.Join(folder, file)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(Hasten(string(b), factor)), 0o644); err != nil {
			return err
		}
	}
	return nil
}
