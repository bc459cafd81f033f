package catalog

import "fmt"

// MaxServiceBytes bounds the length of a service's name.
const MaxServiceBytes = 128

// CheckService says what is wrong with the name of a service: nil if it can be
// one. It keeps out what needs escaping in a URL, a filter or a file's name,
// and what is a step in a path, before it costs anything: names may come from
// requests.
func CheckService(name string) error {
	if name == "" || len(name) > MaxServiceBytes {
		return fmt.Errorf("the service name is %d bytes; want 1 to %d", len(name), MaxServiceBytes)
	}
	for n, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case n > 0 && (r == '-' || r == '_' || r == '.'):
		default:
			return fmt.Errorf("the service name is %q; want letters, digits, and after the first also '-', '_', '.'", name)
		}
	}
	return nil
}
