// One instance, all that is known of it.

import { el, mark, outside, remark, say, set } from './dom.js';
import { ago, clock, count, duration, kindOf, kinds, parsed, why } from './words.js';

// detail shows an instance in root, which is hidden as long as none is chosen. closed
// is called when the viewer has closed it.
export function detail(root, closed) {
  const sign = mark('passing');
  const name = el('span');
  const heading = el('h2', { id: 'detail-name', tabindex: '-1' }, sign, name);
  const close = el('button', { type: 'button', class: 'quiet', 'aria-label': 'Close' }, '×');
  const state = el('p', { class: 'state' });
  const [facts, out, seen, checks] = Array.from({ length: 4 }, () => el('div'));
  const links = el('p', { class: 'links' });
  root.replaceChildren(el('header', {}, heading, close), state, facts, out, seen, checks, links);

  close.addEventListener('click', closed);
  root.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') closed();
  });

  const drawn = new Map(); // part: what it was drawn from

  // draw makes a part anew only if it is to show something else, so that one can read
  // it, and mark text in it, while the rest changes.
  function draw(part, from, make) {
    const text = JSON.stringify(from);
    if (drawn.get(part) === text) return;
    drawn.set(part, text);
    part.replaceChildren(...make(from));
  }

  function show(service, instance, consul) {
    const kind = kindOf(instance);
    remark(sign, kind);
    say(name, instance.id);
    set(state, 'class', `state k-${kind}`);
    draw(state, [kinds[kind], why(instance)], ([word, reason]) => [word, reason && el('span', {}, ` – ${reason}`)]);
    draw(facts, factsOf(service, instance), (rows) => [el('dl', { class: 'facts' }, ...rows.map(([term, text]) => el('div', {}, el('dt', {}, term), el('dd', {}, text))))]);
    draw(out, instance.out ?? [], (list) => section('Out of use', list.map(outAt)));
    draw(seen, instance.seen ?? [], (list) => section('As its callers see it', list.map(seenBy)));
    draw(checks, instance.checks ?? [], (list) => section('Checks', list.map(check)));
    draw(links, [service, consul.ui, consul.prometheus], linksOf);
    root.hidden = false;
  }

  // gone shows that an instance is not there, with what was known of it.
  function gone(id) {
    remark(sign, 'left');
    say(name, id);
    set(state, 'class', 'state');
    draw(state, ['gone'], () => ['It is not in the mesh, or has left it.']);
    root.hidden = false;
  }

  return { show, gone, hide: () => { root.hidden = true; }, focus: () => heading.focus() };
}

function linksOf([service, ui, prometheus]) {
  return [
    outside(ui && `${ui}/services/${encodeURIComponent(service)}/instances`, `${service} in Consul`),
    outside(prometheus && `${prometheus}/consoles/service.html?service=${encodeURIComponent(service)}`, `${service} in Prometheus`),
  ].filter((link) => link !== null);
}

function factsOf(service, instance) {
  const off = instance.clock_off_seconds ?? 0;
  return [
    ['service', service],
    ['address', instance.addr],
    ['protocol', instance.protocol],
    ['node', instance.node],
    ['zone', instance.zone],
    ['version', instance.version],
    ['weight', String(instance.weight)],
    ['its status', instance.answered ? `${duration(instance.age_seconds)} old` : 'none'],
    ['its clock', off === 0 ? '' : `${duration(Math.abs(off))} ${off > 0 ? 'ahead' : 'behind'}`],
  ].filter(([, text]) => text);
}

function section(title, items) {
  return items.length === 0 ? [] : [el('h3', {}, title), el('ul', { class: 'list' }, ...items)];
}

function outAt(o) {
  return el('li', {}, mark('out'), el('div', {}, el('strong', {}, o.by), ` ${o.reason}`,
    el('div', { class: 'muted' }, when(o.since), parsed(o.until) !== null && ', on trial again ', when(o.until))));
}

// when is a time that is told as a distance from now, and kept true by page.js.
function when(at) {
  const t = parsed(at);
  return t === null ? null : el('time', { datetime: at, 'data-ago': t, title: clock(t) }, ago(t));
}

// seenBy is what a caller knows of it: by its own requests, and by Consul's word.
function seenBy(s) {
  const numbers = [
    s.latency_seconds > 0 && duration(s.latency_seconds), `${s.in_flight ?? 0} in flight`, count(s.connections ?? 0, 'connection'),
    s.snapshot_age_seconds > 0 && `snapshot ${duration(s.snapshot_age_seconds)} old`,
  ];
  return el('li', { class: 'wide' }, el('strong', {}, s.by), ` ${s.health || 'not asked yet'}`,
    el('div', { class: 'muted' }, numbers.filter((n) => n !== false).join(' · ')));
}

function check(c) {
  const kind = c.status in kinds ? c.status : 'critical';
  return el('li', {}, mark(kind), el('div', {}, el('strong', {}, c.name), ` ${c.status}`, c.output && el('pre', {}, c.output)));
}
