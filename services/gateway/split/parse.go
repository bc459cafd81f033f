package split

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// Bounds of a document.
const (
	maxBytes    = 64 << 10
	maxServices = 100
	maxRules    = 20
	maxText     = 256
)

// LineError says what is wrong with a document, and where.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns what is wrong.
func (e *LineError) Unwrap() error { return e.Err }

// Parse reads a document: an object with a list of rules for each service, of which the
// first counts that a request falls under.
//
//	{
//	  "order": [
//	    {"to": "version=v2", "header": "X-Version=v2"},
//	    {"to": "version=v2", "percent": 5, "sticky": "cookie:session"}
//	  ]
//	}
//
// An empty document has no rules. The error is a *LineError.
func Parse(text []byte) (*Splits, error) {
	p := &parser{text: text, d: json.NewDecoder(bytes.NewReader(text))}
	s := &Splits{Services: map[string][]Rule{}}
	if len(bytes.TrimSpace(text)) == 0 {
		return s, nil
	}
	if len(text) > maxBytes {
		return nil, &LineError{1, fmt.Errorf("the document has %d bytes; want at most %d", len(text), maxBytes)}
	}
	if err := p.document(s); err != nil {
		if _, ok := errors.AsType[*LineError](err); !ok {
			err = p.at(p.d.InputOffset(), err)
		}
		return nil, err
	}
	s.sort()
	return s, nil
}

type parser struct {
	text []byte
	d    *json.Decoder
}

// at makes err one of the line that holds the offset.
func (p *parser) at(offset int64, err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = syntax.Offset
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		offset = int64(len(p.text))
	}
	offset = min(max(offset, 0), int64(len(p.text)))
	return &LineError{1 + bytes.Count(p.text[:offset], []byte("\n")), err}
}

func (p *parser) expect(want json.Delim, what string) error {
	got, err := p.d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("there is %v; want %s", got, what)
	}
	return err
}

func (p *parser) document(s *Splits) error {
	if err := p.expect('{', "an object with a list of rules for each service"); err != nil {
		return err
	}
	for p.d.More() {
		name, err := p.d.Token()
		if err != nil {
			return err
		}
		service, _ := name.(string)
		if err := catalog.CheckService(service); err != nil {
			return err
		}
		switch {
		case s.Services[service] != nil:
			return fmt.Errorf("%s is there twice; want all its rules in one list", service)
		case len(s.Services) == maxServices:
			return fmt.Errorf("%s is one too many; want at most %d services", service, maxServices)
		}
		if s.Services[service], err = p.rules(service); err != nil {
			return err
		}
	}
	if err := p.expect('}', "the end of the object"); err != nil {
		return err
	}
	if _, err := p.d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something stands behind the object; want nothing")
	}
	return nil
}

func (p *parser) rules(service string) ([]Rule, error) {
	if err := p.expect('[', "a list of rules"); err != nil {
		return nil, err
	}
	rules := []Rule{}
	for p.d.More() {
		var raw json.RawMessage
		if err := p.d.Decode(&raw); err != nil {
			return nil, err
		}
		from := p.d.InputOffset() - int64(len(raw))
		var r Rule
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		err := d.Decode(&r)
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, p.at(from+wrong.Offset, fmt.Errorf("%s of a rule of %s is a %s; want a %s", wrong.Field, service, wrong.Value, wrong.Type))
		}
		if err == nil {
			err = r.validate()
		}
		if err == nil && len(rules) == maxRules {
			err = fmt.Errorf("it is one too many; want at most %d rules", maxRules)
		}
		if err != nil {
			return nil, p.at(from, fmt.Errorf("a rule of %s: %w", service, err))
		}
		rules = append(rules, r)
	}
	return rules, p.expect(']', "the end of the list")
}

func (r Rule) validate() error {
	for field, text := range map[string]string{"to": r.To, "header": r.Header, "sticky": r.Sticky} {
		if len(text) > maxText {
			return fmt.Errorf("%s has %d bytes; want at most %d", field, len(text), maxText)
		}
	}
	if key, value, ok := strings.Cut(r.To, "="); !ok || key == "" || value == "" {
		return fmt.Errorf("to is %q; want a key and a value of Meta, or a tag of that kind, such as version=v2", clip.To(80, r.To))
	}
	if name, _, _ := strings.Cut(r.Header, "="); r.Header != "" && !isToken(name) {
		return fmt.Errorf("header is %q; want the name of a header, or Name=value", clip.To(80, r.Header))
	}
	switch {
	case math.IsNaN(r.Percent) || r.Percent < 0 || r.Percent > 100:
		return fmt.Errorf("percent is %v; want more than 0 and at most 100", r.Percent)
	case r.Percent == 0 && r.Header == "":
		return errors.New("there is neither percent nor header; want one of them")
	case r.Sticky != "" && r.Percent == 0:
		return errors.New("sticky is there without percent; want both")
	}
	if kind, name, _ := strings.Cut(r.Sticky, ":"); r.Sticky != "" && (kind != "cookie" && kind != "header" || !isToken(name)) {
		return fmt.Errorf("sticky is %q; want cookie:NAME or header:NAME", clip.To(80, r.Sticky))
	}
	return nil
}

// isToken reports whether a text can be the name of a header or a cookie (RFC 9110,
// section 5.6.2).
func isToken(s string) bool {
	for n := range len(s) {
		if s[n] <= ' ' || s[n] >= 0x7f || strings.IndexByte("()<>@,;:\\\"/[]?={}", s[n]) >= 0 {
			return false
		}
	}
	return s != ""
}
