// The lines of calls: where they go, and where their numbers stand.

import { svg } from './dom.js';
import { lookOf } from './words.js';

const apart = 46; // pixels between the middles of two calls' numbers

export function half([x1, y1], [x2, y2]) {
  return [(x1 + x2) / 2, (y1 + y2) / 2];
}

// ends spreads the calls at one side of a card around its middle, in the order of
// where they lead, so that they do not cross there.
export function ends(routes, side, height) {
  const offsets = new Map();
  for (const group of Map.groupBy(routes, side).values()) {
    group.sort((a, b) => height(a) - height(b));
    group.forEach((route, i) => offsets.set(route, (i - (group.length - 1) / 2) * 16));
  }
  return offsets;
}

// below leads out of the foot of one card and into that of another, or of the same,
// under the foot of all.
export function below(from, to, foot) {
  const same = from === to;
  const x1 = (from.left + from.right) / 2 + (same ? 28 : 0);
  const x2 = (to.left + to.right) / 2 - (same ? 28 : 12);
  const deep = (8 * (foot + 44) - from.bottom - to.bottom) / 6; // so that the curve's lowest point is there
  return { points: [[x1, from.bottom], [x2, to.bottom]], deep, label: [(x1 + x2) / 2, foot + 44] };
}

// spread moves numbers apart that would lie on each other.
export function spread(labels) {
  labels.sort((a, b) => a.x - b.x || a.y - b.y);
  for (let i = 1; i < labels.length; i++) {
    for (let j = 0; j < i; j++) {
      if (Math.abs(labels[i].x - labels[j].x) < 120 && Math.abs(labels[i].y - labels[j].y) < apart) {
        labels[i].y = labels[j].y + apart;
      }
    }
  }
}

// curve draws a call: thicker the more there are, by the logarithm.
export function curve({ edge, points, deep }) {
  const [x1, y1] = points[0];
  const [x2, y2] = points.at(-1);
  let way = `M${x1} ${y1}`;
  let head;
  if (deep) {
    way += `C${x1} ${deep} ${x2} ${deep} ${x2} ${y2 + 8}`;
    head = `M${x2} ${y2 + 1}l-5 9h10z`;
  } else {
    for (let i = 1; i < points.length; i++) {
      const [ax, ay] = points[i - 1];
      const [bx, by] = points[i];
      const x = i === points.length - 1 ? bx - 8 : bx;
      way += i % 2 === 0 ? `L${bx} ${by}` : `C${(ax + x) / 2} ${ay} ${(ax + x) / 2} ${by} ${x} ${by}`;
    }
    head = `M${x2 - 1} ${y2}l-9-5v10z`;
  }
  const look = lookOf(edge);
  const width = edge.rate > 0 ? Math.min(6, 1.5 + Math.log2(1 + edge.rate) * 0.35) : 1.5;
  return [
    svg('path', { class: `line ${look}`, d: way, 'stroke-width': width.toFixed(2) }),
    svg('path', { class: `head ${look}`, d: head }),
  ];
}
