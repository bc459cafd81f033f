package app

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// SettingError says which setting is wrong, what its value is, and what is
// wanted.
type SettingError struct {
	Name  string // the flag and the environment variable
	Value string
	Want  string
}

func (e *SettingError) Error() string {
	return fmt.Sprintf("%s is %q; want %s", e.Name, e.Value, e.Want)
}

// The kinds of settings. Each reads itself, with the bounds that its tags min
// and max give, and takes an empty value for its default: Compose passes on
// variables that nobody set as empty ones.
type (
	// Duration is a time as Go writes it: 300ms, 1m30s.
	Duration time.Duration
	// Count is a whole number.
	Count int
	// Addr is an address to listen at: host:port, the host may be empty.
	Addr string
	// Choice is one of the words in the tag oneof.
	Choice string
	// URL is one of http or https without a query, or empty.
	URL string
)

func (d *Duration) decode(ctx *kong.DecodeContext) error {
	raw, err := pop(ctx)
	if err != nil {
		return err
	}
	v, err := time.ParseDuration(raw)
	low, high := bound(ctx, "min", time.ParseDuration), bound(ctx, "max", time.ParseDuration)
	if err != nil || v < low || v > high {
		return wrong(ctx, raw, "a time from %v to %v, such as %s", low, high, ctx.Value.Default)
	}
	*d = Duration(v)
	return nil
}

func (c *Count) decode(ctx *kong.DecodeContext) error {
	raw, err := pop(ctx)
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(raw)
	low, high := bound(ctx, "min", strconv.Atoi), bound(ctx, "max", strconv.Atoi)
	if err != nil || v < low || v > high {
		return wrong(ctx, raw, "a number from %d to %d", low, high)
	}
	*c = Count(v)
	return nil
}

func (a *Addr) decode(ctx *kong.DecodeContext) error {
	raw, err := pop(ctx)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(raw)
	n, notNumber := strconv.Atoi(port)
	if err != nil || notNumber != nil || n < 0 || n > 65535 || strings.ContainsAny(host, " /") {
		return wrong(ctx, raw, "host:port with a port from 0 to 65535 (0: any free one), such as %s", ctx.Value.Default)
	}
	*a = Addr(raw)
	return nil
}

func (c *Choice) decode(ctx *kong.DecodeContext) error {
	raw, err := pop(ctx)
	if err != nil {
		return err
	}
	words := ctx.Value.Tag.Get("oneof")
	for word := range strings.SplitSeq(words, ",") {
		if strings.EqualFold(raw, word) {
			*c = Choice(word)
			return nil
		}
	}
	return wrong(ctx, raw, "one of %s", strings.ReplaceAll(words, ",", ", "))
}

func (u *URL) decode(ctx *kong.DecodeContext) error {
	raw, err := pop(ctx)
	if err != nil {
		return err
	}
	if raw != "" {
		if at, err := url.Parse(raw); err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.RawQuery != "" || at.Fragment != "" {
			return wrong(ctx, raw, "a URL of http or https without a query, such as http://localhost:8080")
		}
	}
	*u = URL(raw)
	return nil
}

// decoder is one of the kinds of settings.
type decoder interface {
	decode(ctx *kong.DecodeContext) error
}

// kinds returns the options that teach kong our kinds of settings. What they
// refuse is noted in wrong, since kong tells it as text only, between other
// words.
func kinds(wrong **SettingError) []kong.Option {
	mapper := kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		err := target.Addr().Interface().(decoder).decode(ctx)
		if e, ok := errors.AsType[*SettingError](err); ok {
			*wrong = e
		}
		return err
	})
	return []kong.Option{
		kong.TypeMapper(reflect.TypeFor[Duration](), mapper),
		kong.TypeMapper(reflect.TypeFor[Count](), mapper),
		kong.TypeMapper(reflect.TypeFor[Addr](), mapper),
		kong.TypeMapper(reflect.TypeFor[Choice](), mapper),
		kong.TypeMapper(reflect.TypeFor[URL](), mapper),
	}
}

// pop returns the value given, its default if that is empty.
func pop(ctx *kong.DecodeContext) (string, error) {
	var raw string
	if err := ctx.Scan.PopValueInto("value", &raw); err != nil {
		return "", err
	}
	if raw == "" {
		raw = ctx.Value.Default
	}
	return raw, nil
}

// bound reads a tag of our own source, so that a value that can't be read is
// the zero one: TestEverySettingTakesItsDefaultAndRefusesNonsense would see it.
func bound[T any](ctx *kong.DecodeContext, tag string, parse func(string) (T, error)) T {
	v, _ := parse(ctx.Value.Tag.Get(tag))
	return v
}

func wrong(ctx *kong.DecodeContext, raw, want string, args ...any) error {
	return &SettingError{Name: settingName(ctx.Value), Value: raw, Want: fmt.Sprintf(want, args...)}
}

// settingName names a setting as people may have set it.
func settingName(v *kong.Value) string {
	name := "--" + v.Name
	if v.Flag != nil && len(v.Flag.Envs) > 0 {
		return v.Flag.Envs[0] + " (" + name + ")"
	}
	return name
}
