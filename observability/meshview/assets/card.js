// The card of a service.

import { el, keep, mark, remark, say, set } from './dom.js';
import { keyOf } from './layout.js';
import { duration, kindOf, kinds, lookOf, rate, share, tally, why } from './words.js';

let made = 0; // cards, for their IDs

// card is a service: its name, how many of its instances pass, a mark for each, and
// what it calls.
export function card(name, pick) {
  const id = `service-${++made}`;
  const heading = el('h3', { id, tabindex: '-1' }, name);
  const passing = el('span', { class: 'passing' });
  const panic = el('p', { class: 'panic', hidden: true });
  const dots = el('ul', { class: 'dots', 'aria-label': `Instances of ${name}` });
  const counts = el('ul', { class: 'tally', 'aria-label': `States of ${name}` });
  const calls = el('ul', { class: 'calls', 'aria-label': `Calls of ${name}` });
  const node = el('article', { class: 'service', 'aria-labelledby': id }, el('header', {}, heading, passing), panic, dots, counts, calls);
  let instances = [];
  let current = null; // key of the mark that Tab comes to

  dots.addEventListener('keydown', (event) => walk(event, dots));
  dots.addEventListener('focusin', (event) => {
    current = event.target.dataset.key;
    tab();
  });
  dots.addEventListener('click', (event) => {
    const dot = event.target.closest('button');
    if (dot) pick(name, dot.dataset.key);
  });

  // tab makes one mark of the card a stop of Tab; the arrow keys reach the others.
  function tab() {
    if (!instances.some((i) => i.key === current)) current = instances[0]?.key ?? null;
    for (const dot of dots.querySelectorAll('button')) {
      set(dot, 'tabindex', dot.dataset.key === current ? '0' : '-1');
    }
  }

  function size() {
    const n = instances.length;
    return n > 600 ? 'huge' : n > 150 ? 'dense' : n > 40 ? 'many' : 'few';
  }

  function width() {
    return { few: 196, many: 224, dense: 280, huge: 364 }[size()];
  }

  function show(service, edges) {
    instances = service.instances;
    // What speaks several protocols has an entry, and so a mark, for each of its ports.
    const protocols = protocolsOf(instances);
    const ports = protocols.length > 1 ? ' ports' : '';
    say(passing, service.total > 0 ? `${service.passing} of ${service.total}${ports}` : 'none');
    set(passing, 'title', `${service.passing} of ${service.total} pass their checks${ports && `: ${protocols.join(', ')}`}`);
    const by = service.panic_by ?? [];
    panic.hidden = by.length === 0;
    say(panic, by.length > 0 ? `Panic: ${by.join(', ')} ${by.length > 1 ? 'use' : 'uses'} critical instances, for want of better ones` : '');
    set(node, 'class', `service ${size()}`);
    node.style.setProperty('--width', `${width()}px`);
    keep(dots, instances, (i) => i.key, dotOf, showDot);
    tab();
    const states = tally(instances);
    const left = service.total - instances.length;
    if (left > 0) states.push({ kind: '', count: left });
    keep(counts, states, (t) => t.kind, ({ kind }) => el('li', {}, kind && mark(kind), el('span')), (li, t) => {
      say(li.lastElementChild, `${t.count} ${kinds[t.kind] ?? 'not shown'}`);
    });
    keep(calls, edges, keyOf, callOf, showCall);
  }

  return {
    node,
    width,
    show,
    dot: (key) => [...dots.querySelectorAll('button')].find((b) => b.dataset.key === key),
    call: (to) => [...calls.children].find((li) => li.dataset.to === to),
    choose: (key) => {
      for (const dot of dots.querySelectorAll('button')) set(dot, 'aria-expanded', String(dot.dataset.key === key));
    },
  };
}

// protocolsOf says how many of the instances speak what: "5 http".
function protocolsOf(instances) {
  const counts = new Map();
  for (const { protocol } of instances) counts.set(protocol, (counts.get(protocol) ?? 0) + 1);
  return [...counts].sort().map(([protocol, count]) => `${count} ${protocol || 'other'}`);
}

function dotOf(instance) {
  return el('li', {}, el('button', { type: 'button', 'data-key': instance.key, 'aria-controls': 'detail', 'aria-expanded': 'false' }, mark('passing')));
}

function showDot(li, instance) {
  const dot = li.firstElementChild;
  const kind = kindOf(instance);
  const reason = why(instance);
  const name = `${instance.id}: ${kinds[kind]}${reason ? `, ${reason}` : ''}`;
  remark(dot.firstElementChild, kind);
  set(dot, 'aria-label', name);
  set(dot, 'title', name);
}

function callOf(edge) {
  return el('li', { 'data-to': edge.to },
    el('span', { class: 'to' }, `to ${edge.to} `), el('b'), ' ',
    el('span', { class: 'share' }), el('span', { class: 'heard when-busy' }, ' failed, '), el('span', { class: 'p99' }), el('span', { class: 'heard when-busy' }, ' at the 99th percentile'));
}

function showCall(li, edge) {
  const [, number, failed, , p99] = li.children;
  say(number, edge.rate > 0 ? rate(edge.rate) : 'idle');
  say(failed, edge.rate > 0 ? share(edge.failed, edge.rate) : '');
  say(p99, edge.rate > 0 ? duration(edge.p99_seconds) : '');
  set(li, 'class', lookOf(edge));
  set(li, 'title', `${edge.from} calls ${edge.to}: ${rate(edge.rate)}, ${share(edge.failed, edge.rate)} failed, `
    + `${rate(edge.retried)} tried again, half within ${duration(edge.p50_seconds)}, 99 % within ${duration(edge.p99_seconds)}`);
}

// walk moves the focus among the marks of one card, by the arrow keys, Home and End.
function walk(event, dots) {
  const all = [...dots.querySelectorAll('button')];
  const at = all.indexOf(event.target);
  const row = all.filter((b) => b.offsetTop === all[0].offsetTop).length;
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + row, ArrowUp: at - row, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  all[Math.max(0, Math.min(all.length - 1, to))].focus();
}
