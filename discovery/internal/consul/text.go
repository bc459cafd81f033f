package consul

import (
	"fmt"
	"unicode/utf8"
)

// CheckText says what is wrong with a value that is to be stored in Consul: it
// must be UTF-8, since Consul replaces each other byte, and what is read back
// would never be what was written. The error names the field.
func CheckText(field, value string) error {
	if !utf8.ValidString(value) {
		return fmt.Errorf("%s is %q; want UTF-8", field, value)
	}
	return nil
}
