// The same as the picture in words: what a screen reader reads, and what there is
// without a script.

import { el, keep, mark, remark, say } from './dom.js';
import { address, duration, kindOf, kinds, rate, share, why } from './words.js';

export function table(instances, calls) {
  for (const body of [...instances.tBodies]) body.remove();
  const bodies = new Map(); // service: its rows
  const lines = calls.tBodies[0];

  return function show(picture) {
    calls.hidden = picture.edges.length === 0;
    keep(lines, picture.edges, (e) => `${e.from}\n${e.to}`, (e) => row(e.from, 6), (tr, e) => {
      write(tr, [e.to, rate(e.rate), share(e.failed, e.rate), rate(e.retried), duration(e.p50_seconds), duration(e.p99_seconds)]);
    });
    const names = picture.services.map((s) => s.name);
    for (const [name, body] of bodies) {
      if (names.includes(name)) continue;
      body.remove();
      bodies.delete(name);
    }
    picture.services.forEach((service, at) => {
      if (!bodies.has(service.name)) bodies.set(service.name, el('tbody'));
      const body = bodies.get(service.name);
      if (instances.tBodies[at] !== body) instances.insertBefore(body, instances.tBodies[at] ?? null);
      fill(body, service);
    });
  };
}

function fill(body, service) {
  const rows = [null, ...service.instances];
  keep(body, rows, (i) => i?.key ?? '', (i) => (i ? rowOf(service, i) : headOf(service)), (tr, i) => {
    if (!i) {
      say(tr.firstElementChild.lastElementChild, `${service.passing} of ${service.total} passing`);
      return;
    }
    const [sign, word] = tr.children[1].children;
    remark(sign, kindOf(i));
    say(word, kinds[kindOf(i)]);
    write(tr, [null, why(i), i.addr, i.node, i.zone, i.version, i.weight]);
  });
}

function rowOf(service, instance) {
  const tr = row(el('a', { href: address(service.name, instance.key) }, instance.id), 7);
  tr.children[1].append(mark('passing'), ' ', el('span'));
  return tr;
}

function headOf(service) {
  return el('tr', { class: 'service-row' }, el('th', { scope: 'rowgroup', colspan: '8' }, service.name, ' ', el('span')));
}

function row(name, cells) {
  return el('tr', {}, el('th', { scope: 'row' }, name), ...Array.from({ length: cells }, () => el('td')));
}

// write sets the cells after the first; null leaves one as it is.
function write(tr, texts) {
  texts.forEach((text, i) => {
    if (text !== null) say(tr.children[i + 1], String(text ?? ''));
  });
}
