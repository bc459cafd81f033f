package browsertest

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

//go:embed testdata/access.js
var rules string

// check holds the page as it is now against the rules.
func (b *tab) check(what string) {
	b.t.Helper()
	for _, wrong := range value[[]string](b, rules) {
		b.t.Errorf("%s: %s", what, wrong)
	}
	tree, err := chromedp.Run(b.ctx, func(ctx context.Context, target *chromedp.Target) (accessibility.GetFullAXTreeResult, error) {
		return cdp.Call(ctx, target, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	})
	if err != nil {
		b.t.Fatal(err)
	}
	reached := 0
	for _, node := range tree.Nodes {
		role := text(node.Role)
		if node.Ignored || role == "RootWebArea" || !slices.ContainsFunc(node.Properties, func(p *accessibility.Property) bool {
			return p.Name == accessibility.PropertyNameFocusable && text(p.Value) == "true"
		}) {
			continue
		}
		reached++
		if role == "" || role == "generic" || text(node.Name) == "" {
			b.t.Errorf("%s: what can have the focus has the role %q and the name %q; want both", what, role, text(node.Name))
		}
	}
	if reached < 10 {
		b.t.Errorf("%s: %d elements can have the focus; want the page's", what, reached)
	}
}

// text of a value in the tree of accessibility.
func text(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var got any
	if json.Unmarshal(v.Value, &got) != nil || got == nil {
		return ""
	}
	return fmt.Sprint(got)
}

func TestPageKeepsTheRulesOfAccess(t *testing.T) {
	f := troubled(t)
	for _, s := range []setting{desk, {width: 1440, height: 900, dark: true}, {width: 360, height: 740}, {width: 360, height: 740, dark: true}} {
		t.Run(fmt.Sprintf("width %d, dark %t", s.width, s.dark), func(t *testing.T) {
			b := open(t, f.url(), s)
			b.until(live)
			b.until(dot("order-9"))
			b.until(`document.querySelectorAll(".banner").length > 0`)
			b.check("picture")
			value[any](b, dot("order-2")+`.click(), null`)
			b.until(`!document.querySelector("#detail").hidden`)
			b.check("instance")
			b.press(kb.Escape)
			value[any](b, `document.querySelector("#as-table").click(), null`)
			b.until(`document.querySelector("#instances").getBoundingClientRect().width > 0`)
			b.check("table")
		})
	}
}

func TestKeysReachEverything(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	for _, id := range []string{"gateway-1", "order-1", "order-2", "user-1"} {
		b.until(dot(id))
	}
	b.until(`document.querySelectorAll(".calls li").length === 3`) // the cards stand where they will
	const focused = `(() => {
		const n = document.activeElement;
		if (n === document.body) return "";
		const s = getComputedStyle(n);
		const seen = s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2;
		return (n.getAttribute("aria-label") ?? n.textContent.trim().slice(0, 30)) + (seen ? "" : " WITHOUT A SIGN") + (n.id ? " #" + n.id : "");
	})()`
	var way []string
	for range 60 {
		b.press(kb.Tab)
		at := value[string](b, focused)
		if at == "" || len(way) > 0 && at == way[0] {
			break
		}
		way = append(way, at)
	}
	for _, want := range []string{
		"To the services", "Consul", "Prometheus", "Picture #as-picture", "Table #as-table", "gateway-1: passing", "order-1: passing", "user-1: passing",
		" #q", "Ask", "Kind of event #event-kind", "Events with #event-word",
	} {
		if !slices.Contains(way, want) {
			t.Errorf("Tab does not come to %q, or it shows no focus there; it comes to %q", want, way)
		}
	}

	value[any](b, dot("order-1")+`.focus(), null`)
	b.press(kb.ArrowRight)
	if got := value[string](b, focused); got != "order-2: passing" {
		t.Errorf("the arrow key goes from order-1 to %q; want order-2", got)
	}
	b.press(kb.Enter)
	b.until(`document.activeElement.id === "detail-name" && document.activeElement.innerText.includes("order-2")`)
	b.press(kb.Escape)
	if got := value[string](b, focused); got != "order-2: passing" {
		t.Errorf("Escape leaves the focus at %q; want it where it was", got)
	}
}

func TestNewsIsSaidToAScreenReader(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(dot("order-2"))
	f.register(instance{service: "order", id: "order-3", port: 5003})
	f.register(instance{service: "order", id: "order-4", port: 5004})
	b.until(`document.querySelector("#said").textContent.includes("joined order")`)
}

func TestFocusStaysWhereTheMeshChanges(t *testing.T) {
	f, gateway, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(dot("order-2"))
	value[any](b, dot("order-2")+`.focus(), null`)
	f.register(instance{service: "order", id: "order-0", port: 5003}) // comes before it
	b.until(dot("order-0"))
	f.register(instance{service: "front", id: "front-1", port: 5012, process: gateway})
	b.until(dot("front-1"))
	if got := value[string](b, `document.activeElement.getAttribute("aria-label")`); got != "order-2: passing" {
		t.Errorf("the focus went to %q; want it at order-2", got)
	}
}
