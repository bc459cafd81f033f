package browsertest

import (
	"testing"
)

func TestLayoutHoldsItsLaws(t *testing.T) {
	f := newFleet(t)
	b := open(t, f.url(), desk)
	wrong := value[[]string](b, `(async () => {
		const { layout } = await import("/mesh/assets/layout.js");
		const wrong = [];
		let seed = 1;
		const random = (n) => (seed = seed * 48271 % 2147483647) % n;
		const shuffled = (list) => list.map((v) => [random(1e6), v]).sort((a, b) => a[0] - b[0]).map(([, v]) => v);
		for (let run = 0; run < 300; run++) {
			const services = Array.from({ length: random(9) }, (_, i) => ({ name: "s" + i }));
			const edges = [];
			for (const a of services) for (const b of services) if (random(4) === 0) edges.push({ from: a.name, to: b.name });
			edges.push({ from: "s0", to: "nobody" });
			const plan = layout(services, edges);
			const about = JSON.stringify(edges);
			if (JSON.stringify(layout(shuffled(services), shuffled(edges))) !== JSON.stringify(plan)) wrong.push("another order gives another layout: " + about);
			const column = new Map(plan.columns.flatMap((places, i) => places.map((p) => [p.key, i])));
			const placed = [...plan.columns.flat().filter((p) => p.service).map((p) => p.service), ...plan.rest].sort();
			if (JSON.stringify(placed) !== JSON.stringify(services.map((s) => s.name).sort())) wrong.push("not each service has one place: " + about);
			if (plan.columns.some((places) => places.length === 0)) wrong.push("a column is empty: " + about);
			if (plan.routes.length !== edges.length - 1) wrong.push("not each call has one route: " + about);
			const lane = (edge, at) => plan.columns[at].some((p) => p.lane && p.edge === edge);
			for (const { edge, lanes, back } of plan.routes) {
				if (back) continue;
				const [from, to] = [column.get(edge.from), column.get(edge.to)];
				if (from >= to) wrong.push("a call goes left: " + JSON.stringify(edge) + about);
				const over = Array.from({ length: Math.max(0, to - from - 1) }, (_, i) => from + 1 + i);
				if (lanes.length !== over.length || !over.every((at) => lane(edge, at))) wrong.push("a call lacks a lane: " + JSON.stringify(edge) + about);
			}
			const tree = edges.filter((e) => e.from < e.to);
			if (layout(services, tree).routes.some((r) => r.back)) wrong.push("a call goes back where there is no circle: " + JSON.stringify(tree));
		}
		return wrong.slice(0, 5);
	})()`)
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestCallsInACircleAreDrawnUnderTheServices(t *testing.T) {
	f, _, order, user := small(t)
	user.calls("order", 10, 0)
	order.calls("user", 20, 0)
	b := open(t, f.url(), desk)
	b.until(live)
	b.until(card("user") + `?.querySelectorAll(".calls li").length === 1`)
	under := value[bool](b, card("user")+`.querySelector(".calls li").getBoundingClientRect().top > Math.max(...[...document.querySelectorAll(".columns .service")].map(c => c.getBoundingClientRect().bottom))`)
	if !under {
		t.Error("the call that goes back is drawn over the services")
	}
}
