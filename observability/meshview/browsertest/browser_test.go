package browsertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"
)

// limit is how long a test waits for what must come; only a failure takes so long.
const limit = 30 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	if browser.close != nil {
		browser.close()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// browser is the one that all tests share; each has tabs of its own.
var browser chromium

type chromium struct {
	once    sync.Once
	ctx     context.Context //nolint:containedctx // of the browser, as chromedp has it
	close   func()          // nil before the start
	missing string          // why there is none
	err     error
}

func (c *chromium) start() {
	path := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path == "" {
			path, _ = exec.LookPath(name)
		}
	}
	if path == "" {
		c.missing = "no Chromium in the path; CHROMIUM says where there is one"
		return
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU, chromedp.WindowSize(1440, 900))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it has none for root
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	c.ctx, c.close = ctx, func() {
		cancel()
		stop()
	}
	c.err = chromedp.Do(ctx) // starts it
}

// tab is a page in the browser.
type tab struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // of the tab, as chromedp has it

	mu   sync.Mutex // guards said
	said []string   // errors in the console, and dialogs
}

// setting is what a viewer's machine is like.
type setting struct {
	width, height int64
	dark          bool
	noScript      bool
}

var desk = setting{width: 1440, height: 900}

// open opens an address in a tab of its own. At the end of the test the tab must have
// had no error in its console, but for those that b.forgive has taken out.
func open(t *testing.T, address string, s setting) *tab {
	t.Helper()
	browser.once.Do(browser.start)
	switch {
	case browser.missing != "":
		t.Skip(browser.missing)
	case browser.err != nil:
		t.Fatal(browser.err)
	}
	ctx, cancel := chromedp.NewContext(browser.ctx)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	console := chromedp.Console(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for m, err := range console {
			if err != nil {
				return // the tab is closed
			}
			if m.IsException() || m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning {
				b.hear(m.String() + " " + m.URL)
			}
		}
	})
	if err := chromedp.Listen(ctx, func(event any) {
		if e, ok := event.(*page.EventJavascriptDialogOpening); ok {
			b.hear("dialog: " + e.Message)
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		listening.Wait()
		for _, said := range b.said {
			t.Errorf("the browser's console says: %s", said)
		}
	})
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}
	err := chromedp.Do(
		ctx,
		chromedp.EmulateViewport(s.width, s.height),
		do(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme},
			{Name: "prefers-reduced-motion", Value: "reduce"},
		}}),
		do(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: s.noScript}),
		chromedp.Navigate(address),
	)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// do is a command of the protocol without an answer.
func do[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	})
}

func (b *tab) hear(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, text)
}

// forgive takes out what the console said, which the test has caused.
func (b *tab) forgive(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := b.said[:0]
	for _, said := range b.said {
		if !strings.Contains(said, part) {
			kept = append(kept, said)
		}
	}
	b.said = kept
}

func (b *tab) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// press types keys, of package kb those without a letter.
func (b *tab) press(keys string) {
	b.t.Helper()
	b.run(chromedp.KeyEvent(keys))
}

// value evaluates an expression in the page.
func value[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true in the page, and returns how long it took. Of
// what is not there yet nothing is true.
func (b *tab) until(expression string) time.Duration {
	b.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("(() => { try { return !!("+expression+") } catch { return false } })()"))
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			shown, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText"))
			b.t.Fatalf("%s is not true after %v; the page shows\n%s", expression, limit, shown)
		case err != nil:
			b.t.Fatalf("%s: %v", expression, err)
		case ok:
			return time.Since(began)
		}
		if err := chromedp.Do(ctx, chromedp.Sleep(20*time.Millisecond)); err != nil && ctx.Err() == nil {
			b.t.Fatal(err)
		}
	}
}
