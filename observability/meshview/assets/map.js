// The mesh as a picture: a card for each service, with its instances as marks, and
// a curve for each call.

import { card } from './card.js';
import { below, curve, ends, half, spread } from './curve.js';
import { el, keep, svg } from './dom.js';
import { layout } from './layout.js';

const least = 128; // pixels between two columns, so that a call's numbers fit there
const most = 220;

// map draws into root. pick is called with a service and an instance that was chosen.
export function map(root, pick) {
  const lines = svg('svg', { class: 'lines', 'aria-hidden': 'true' });
  const columns = el('div', { class: 'columns' });
  const rest = el('div', { class: 'rest' });
  const restHead = el('p', { class: 'muted', hidden: true }, 'Not seen to call or to be called:');
  root.replaceChildren(lines, columns, restHead, rest);

  const cards = new Map(); // service: its card
  const lanes = new Map(); // call: its lane
  let last = { services: [], edges: [] };
  let plan = layout([], []);
  let chosen = null;

  const cardOf = (name) => {
    if (!cards.has(name)) cards.set(name, card(name, pick));
    return cards.get(name);
  };
  const laneOf = (key) => {
    if (!lanes.has(key)) lanes.set(key, el('div', { class: 'lane', 'aria-hidden': 'true' }));
    return lanes.get(key);
  };

  function show(picture) {
    const focused = document.activeElement;
    last = picture;
    plan = layout(picture.services, picture.edges);
    forget(cards, picture.services.map((s) => s.name));
    forget(lanes, plan.routes.flatMap((r) => r.lanes));
    keep(columns, plan.columns.map((places, i) => ({ places, i })), (c) => c.i, () => el('div', { class: 'column' }), (column, { places }) => {
      keep(column, places, (p) => p.key, (p) => (p.lane ? laneOf(p.key) : cardOf(p.service).node));
    });
    keep(rest, plan.rest, (name) => name, (name) => cardOf(name).node);
    restHead.hidden = plan.rest.length === 0 || plan.columns.length === 0;
    for (const service of picture.services) {
      cardOf(service.name).show(service, plan.routes.map((r) => r.edge).filter((e) => e.from === service.name));
    }
    choose(chosen);
    draw();
    if (focused !== document.activeElement && root.contains(focused)) {
      focused.focus({ preventScroll: true });
    }
  }

  function choose(key) {
    chosen = key;
    for (const c of cards.values()) c.choose(key);
  }

  // draw places the columns in the width that there is, or below each other where
  // it is too little, and then the calls between them.
  function draw() {
    const widths = plan.columns.map((places) => Math.max(0, ...places.map((p) => (p.lane ? 0 : cardOf(p.service).width()))));
    const free = root.clientWidth - 2 * 20 - widths.reduce((a, b) => a + b, 0);
    const gaps = Math.max(1, plan.columns.length - 1);
    const stacked = plan.columns.length > 1 && free < gaps * least;
    root.classList.toggle('stacked', stacked);
    root.classList.toggle('circles', plan.routes.some((r) => r.back));
    root.style.setProperty('--gap', `${Math.min(most, free / gaps)}px`);
    lines.replaceChildren();
    if (stacked) return;
    const labels = [];
    for (const route of placed()) {
      lines.append(...curve(route));
      labels.push({ node: cardOf(route.edge.from).call(route.edge.to), x: route.label[0], y: route.label[1] });
    }
    spread(labels);
    for (const { node, x, y } of labels) {
      node.style.left = `${x}px`;
      node.style.top = `${y}px`;
    }
  }

  // placed gives each call the points that it goes through.
  function placed() {
    const zero = root.getBoundingClientRect();
    const box = (node) => {
      const r = node.getBoundingClientRect();
      return { left: r.left - zero.left, right: r.right - zero.left, top: r.top - zero.top, bottom: r.bottom - zero.top, middle: (r.top + r.bottom) / 2 - zero.top };
    };
    const boxes = new Map(last.services.map((s) => [s.name, box(cardOf(s.name).node)]));
    const stops = new Map(plan.routes.map((r) => [r, r.lanes.map((key) => box(laneOf(key)))]));
    const forward = plan.routes.filter((r) => !r.back);
    const out = ends(forward, (r) => r.edge.from, (r) => (stops.get(r)[0] ?? boxes.get(r.edge.to)).middle);
    const into = ends(forward, (r) => r.edge.to, (r) => (stops.get(r).at(-1) ?? boxes.get(r.edge.from)).middle);
    const foot = Math.max(...plan.columns.flat().filter((p) => p.service).map((p) => boxes.get(p.service).bottom));
    return plan.routes.map((route) => {
      const from = boxes.get(route.edge.from);
      const to = boxes.get(route.edge.to);
      if (route.back) return { ...route, ...below(from, to, foot) };
      const points = [[from.right, from.middle + out.get(route)]];
      const over = stops.get(route);
      for (const lane of over) points.push([lane.left, lane.middle], [lane.right, lane.middle]);
      points.push([to.left, to.middle + into.get(route)]);
      const label = over.length > 0 ? [(over[0].left + over[0].right) / 2, over[0].middle] : half(points[0], points[1]);
      return { ...route, points, label };
    });
  }

  new ResizeObserver(draw).observe(root);
  return { show, choose, card: (name) => cards.get(name)?.node, dot: (name, key) => cards.get(name)?.dot(key) };
}

function forget(held, names) {
  const there = new Set(names);
  for (const name of held.keys()) {
    if (!there.has(name)) held.delete(name);
  }
}
