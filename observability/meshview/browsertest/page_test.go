package browsertest

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/observability/meshview"
)

const live = `document.querySelector("#live").dataset.state === "live"`

func TestServicesStandInTheOrderOfTheirCalls(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(`document.querySelectorAll(".calls li").length === 3`)
	left := func(service string) float64 { return value[float64](b, card(service)+".getBoundingClientRect().left") }
	if g, o, u := left("gateway"), left("order"), left("user"); !(g < o && o < u) {
		t.Errorf("gateway, order and user stand at %v, %v and %v; want each right of its callers", g, o, u)
	}
	for _, want := range []string{"142/s", "31/s", "8.4/s"} {
		b.until(fmt.Sprintf(`[...document.querySelectorAll(".calls b")].some(n => n.textContent === %q && n.getBoundingClientRect().width > 0)`, want))
	}
	if n := value[int](b, `document.querySelectorAll(".line.busy").length`); n != 3 {
		t.Errorf("%d calls are drawn; want 3", n)
	}
	// No number hides another, nor a card.
	if over := value[[]string](b, `(() => {
		const boxes = [...document.querySelectorAll(".calls li, .service")].map(n => [n.textContent, n.getBoundingClientRect()]);
		return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([, y]) => x.left < y.right && y.left < x.right && x.top < y.bottom && y.top < x.bottom).map(([b]) => a + " | " + b));
	})()`); len(over) > 0 {
		t.Errorf("these lie on each other: %q", over)
	}
}

func TestScaleUpIsFollowedWithinTwoSecondsAndWithoutReload(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(dot("order-2"))
	value[bool](b, `window.sameDocument = true`)
	// The machine may be busy with something else once; not each time.
	fastest := limit
	for n := 3; n <= 5; n++ {
		id := fmt.Sprintf("order-%d", n)
		f.register(instance{service: "order", id: id, port: 5000 + n})
		fastest = min(fastest, b.until(dot(id)))
	}
	if n := value[int](b, `document.getAnimations().length`); n != 0 {
		t.Errorf("%d things move, where the viewer wants none to", n)
	}
	b.run(do(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})) // who has said nothing
	b.until(`document.getAnimations().length > 0`)
	t.Logf("the fastest of three took %v", fastest)
	if fastest > 2*time.Second {
		t.Errorf("three instances came, and the fastest to be seen took %v; want 2s or less", fastest)
	}
	b.until(`document.querySelector("#events").innerText.includes("order-5 joined order")`)
	f.deregister("order-5")
	b.until(`document.querySelector("#events").innerText.includes("order-5 left order")`)
	b.until(`!` + dot("order-5"))
	if !value[bool](b, `window.sameDocument === true`) {
		t.Error("the page was loaded anew")
	}
}

func TestEachTroubleHasItsMark(t *testing.T) {
	f := troubled(t)
	b := open(t, f.url(), desk)
	b.until(live)
	for id, want := range map[string]string{
		"order-1": "passing", "order-2": "out of use", "order-3": "does not answer", "order-4": "critical", "order-5": "warning",
		"order-6": "in maintenance", "order-9": "missing",
	} {
		b.until(fmt.Sprintf(`%s?.getAttribute("aria-label").startsWith(%q)`, dot(id), id+": "+want))
	}
	shapes := value[map[string]string](b, `Object.fromEntries([...document.querySelectorAll(".dots button use")].map(u => [u.getAttribute("href"), getComputedStyle(u).color]))`)
	if len(shapes) < 7 {
		t.Errorf("the marks are %v; want one of each kind", shapes)
	}
	b.until(`document.querySelector(".banner.clocks")?.textContent.includes("user-2 90\u00a0s ahead")`)
	b.until(card("gateway") + `.querySelector(".calls .failing .share").textContent.includes("22")`)

	value[any](b, dot("order-2")+`.click(), null`)
	for _, want := range []string{"out of use", "gateway-1", "5 failures in a row", "127.0.0.1:5002", "on trial again in", "order in Consul"} {
		b.until(fmt.Sprintf(`document.querySelector("#detail").innerText.includes(%q)`, want))
	}
	links := value[[]string](b, `[...document.querySelectorAll("#detail a")].map(a => a.href)`)
	want := []string{"http://consul.example/ui/dc1/services/order/instances", "http://prometheus.example/consoles/service.html?service=order"}
	if diff := cmp.Diff(want, links); diff != "" {
		t.Errorf("links of order (-want +got)\n%s", diff)
	}
	value[any](b, dot("order-4")+`.click(), null`)
	b.until(`document.querySelector("#detail pre").textContent.includes("database is locked")`)
}

func TestTagsInNamesAreInert(t *testing.T) {
	f := troubled(t)
	b := open(t, f.url(), desk)
	b.until(live)
	for _, text := range []string{`<script>alert("service")</script>`, `<img src=x onerror=alert("instance")>`} {
		b.until(fmt.Sprintf(`document.body.textContent.includes(%q)`, text))
	}
	value[any](b, dot(`<img src=x onerror=alert("instance")>`)+`.click(), null`)
	b.until(`document.querySelector("#detail pre").textContent.includes('<script>alert("check")</script>')`)
	f.deregister(`<img src=x onerror=alert("instance")>`)
	b.until(`document.querySelector("#events").textContent.includes('<img src=x onerror=alert("instance")> left mail')`)
	if n := value[int](b, `document.querySelectorAll("img[src=x], script:not([src]):not([type='application/json'])").length`); n != 0 {
		t.Errorf("%d elements are made from names", n)
	}
}

func TestConsulThatIsGoneIsSaidAndWhatWasKnownStays(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(dot("order-2"))
	b.until(`!document.querySelector(".banner")`)
	f.consul.Break("", consultest.Refuse())
	b.until(`document.querySelector(".banner.consul")?.textContent.startsWith("Consul can't be asked since ")`)
	if !value[bool](b, `!!`+dot("order-2")) {
		t.Error("what was known is gone with Consul")
	}
	f.consul.Mend()
	b.until(`!document.querySelector(".banner")`)
	b.until(`document.querySelector("#events").innerText.includes("Consul answers again")`)
}

func TestLostServerIsSaidAndWhatWasMissedIsFetched(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(dot("order-2"))
	f.lose(true)
	b.until(`document.querySelector(".banner.stream") && document.querySelector("#live").innerText === "Reconnecting"`)
	f.register(instance{service: "order", id: "order-3", port: 5003})
	f.lose(false)
	b.until(live + ` && !document.querySelector(".banner")`)
	b.until(dot("order-3"))
	b.until(`[...document.querySelectorAll("#events li")].filter(li => li.innerText.includes("order-3 joined order")).length === 1`)
	b.forgive("ERR_")
}

func TestTwoHundredInstancesAreSeenAtAGlance(t *testing.T) {
	f, gateway, _, _ := small(t)
	one := newProcess(t)
	for n := 3; n <= 200; n++ {
		i := instance{service: "order", id: fmt.Sprintf("order-%03d", n), port: 6000 + n, process: one}
		if n%50 == 0 {
			i.status = "critical"
		}
		f.register(i)
	}
	gateway.calls("order", 100, 0)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(card("order") + `?.querySelectorAll(".dots button").length === 200`)
	b.until(card("order") + `.querySelector(".passing").textContent === "196 of 200"`)
	b.until(card("order") + `.querySelector(".tally").textContent.includes("4 critical")`)
	if got := value[float64](b, card("order")+`.getBoundingClientRect().height`); got > 420 {
		t.Errorf("the card of 200 instances is %v pixels high; want it to be seen at a glance", got)
	}
	if got := value[bool](b, `document.querySelector("#map").classList.contains("stacked")`); got {
		t.Error("the services stand below each other, on a wide screen")
	}
	// The keys reach the last one, and Enter opens it.
	value[any](b, card("order")+`.querySelector(".dots button").focus(), null`)
	b.press(kb.End)
	b.press(kb.Enter)
	b.until(`document.querySelector("#detail h2").innerText.includes("order-200")`)
}

func TestPageSaysTheSameWithAndWithoutScript(t *testing.T) {
	f := troubled(t)
	const table = `[...document.querySelectorAll("#instances tr, #calls tr")].map(tr => [...tr.cells].map(c => c.textContent.trim()).join(" | "))`
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(dot("order-3") + `?.getAttribute("aria-label").includes("does not answer")`)
	b.until(`!document.querySelector("#instances").textContent.includes("new")`) // that passes
	with := value[[]string](b, table)
	without := open(t, f.url(), setting{width: 1440, height: 900, noScript: true})
	// The protocol can look where the page can't run anything.
	if diff := cmp.Diff(with, value[[]string](without, table)); diff != "" {
		t.Errorf("with and without (-with +without)\n%s", diff)
	}
	if !slices.ContainsFunc(with, func(row string) bool { return strings.HasPrefix(row, "order-2 | out of use | gateway-1: 5 failures") }) {
		t.Errorf("the table is\n%s", strings.Join(with, "\n"))
	}
	shown := value[string](without, `document.body.innerText`)
	for _, want := range []string{"your browser runs none", "order-4", "As of"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the page without a script does not show %q:\n%s", want, shown)
		}
	}
}

func TestAddressOfAnInstanceOpensIt(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(dot("order-2"))
	value[any](b, dot("order-2")+`.click(), null`)
	b.until(`location.hash.startsWith("#order/")`)
	again := open(t, value[string](b, `location.href`), desk)
	again.until(`document.querySelector("#detail h2")?.innerText.includes("order-2")`)
	f.deregister("order-2")
	again.until(`document.querySelector("#detail").innerText.includes("has left it")`)
}

func TestTimelineIsFiltered(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(dot("user-1"))
	f.register(instance{service: "user", id: "user-2", port: 5011})
	b.until(dot("user-2"))
	f.tell("user-2", "critical", "disk full")
	b.until(`document.querySelector("#events").innerText.includes("disk full")`)
	value[any](b, `document.querySelector("#event-kind").value = "members", document.querySelector("#event-kind").dispatchEvent(new Event("change")), null`)
	if got := value[string](b, `document.querySelector("#events").innerText`); strings.Contains(got, "disk full") || !strings.Contains(got, "user-2 joined user") {
		t.Errorf("of those that joined and left the page shows\n%s", got)
	}
	value[any](b, `document.querySelector("#event-word").focus(), null`)
	b.press("nothing has this")
	b.until(`document.querySelector("#more-events").innerText === "Nothing of this kind."`)
}

func TestNothingIsWiderThanAPhone(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(*testing.T) *fleet
	}{
		{"calm", func(t *testing.T) *fleet { f, _, _, _ := small(t); return f }},
		{"troubled", troubled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := tc.make(t)
			b := open(t, f.url(), setting{width: 360, height: 740})
			b.until(live)
			b.until(card("order") + `?.querySelectorAll(".calls li").length > 0`)
			check := func(what string) {
				t.Helper()
				if got := value[int](b, `document.documentElement.scrollWidth`); got > 360 {
					t.Errorf("%s: the page is %d pixels wide; want 360", what, got)
				}
			}
			check("picture")
			if got := value[bool](b, `document.querySelector("#map").classList.contains("stacked") && getComputedStyle(document.querySelector(".calls .to")).position === "static"`); !got {
				t.Error("the services do not stand below each other with their calls in words")
			}
			value[any](b, dot("order-2")+`.click(), null`)
			b.until(`!document.querySelector("#detail").hidden`)
			check("instance")
			b.press(kb.Escape)
			value[any](b, `document.querySelector("#as-table").click(), null`)
			b.until(`document.querySelector("#instances").getBoundingClientRect().width > 0`)
			check("table")
		})
	}
}

// ask types a question into the page's form.
func (b *tab) ask(question string) {
	b.t.Helper()
	value[any](b, `document.querySelector("#q").value = "", document.querySelector("#q").focus(), null`)
	b.press(question + kb.Enter)
}

func TestQuestionIsAnsweredWithoutSendingAnything(t *testing.T) {
	f, _, _, _ := small(t)
	b := open(t, f.url(), desk)
	b.until(live)
	b.ask("order")
	b.until(`document.querySelector("#answer").innerText.includes("does not follow order")`)
	b.ask("/orders/1")
	b.until(`document.querySelector("#answer").innerText.includes("this process has no routes")`)
	b.forgive("400")
	if got := value[string](b, `location.pathname + location.search`); got != "/mesh/" {
		t.Errorf("the question has left the page for %s", got)
	}
}

func TestButtonSendsOneRequestAndShowsWhereItWent(t *testing.T) {
	var sent atomic.Int32
	order := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Add(1)
		if r.Method != http.MethodGet || r.URL.Path != "/1" {
			t.Errorf("sent %s %s; want GET /1", r.Method, r.URL)
		}
		w.WriteHeader(http.StatusTeapot)
	}))
	defer order.Close()
	f := newFleet(t, func(cfg *meshview.Config, mesh *discovery.Mesh) {
		cfg.Try = mesh.Client().Transport
		cfg.Route = func(_, path string) (meshview.Route, bool) {
			inner, ok := strings.CutPrefix(path, "/orders")
			return meshview.Route{Service: "order", Path: inner, Rule: "/orders"}, ok
		}
	})
	f.register(instance{service: "order", id: "order-1", port: order.Listener.Addr().(*net.TCPAddr).Port})
	b := open(t, f.url(), desk)
	b.until(live)
	b.ask("/orders/1")
	b.until(`document.querySelector("#answer button").innerText === "Send one GET for /orders/1"`)
	if n := sent.Load(); n != 0 {
		t.Fatalf("the question alone has sent %d requests", n)
	}
	value[any](b, `document.querySelector("#answer button").click(), null`)
	b.until(`document.querySelector("#answer").innerText.includes("order answered 418 to a GET for /1, after")`)
	if got := value[string](b, `[...document.querySelectorAll("#answer li strong")].map(e => e.innerText).join()`); got != "order-1" {
		t.Errorf("its tries are shown as %q; want order-1", got)
	}
	if n := sent.Load(); n != 1 {
		t.Errorf("the button has sent %d requests; want 1", n)
	}

	order.Close()
	b.ask("/orders/1")
	b.until(`document.querySelector("#answer button")`)
	value[any](b, `document.querySelector("#answer button").click(), null`)
	b.until(`document.querySelector("#answer").innerText.includes("A GET for /1 at order failed after")`)
}
