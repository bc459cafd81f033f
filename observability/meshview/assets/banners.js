// What the viewer must know before believing the rest.

import { el, keep, say } from './dom.js';
import { clock, count, duration, parsed } from './words.js';

const off = 2; // seconds between two clocks that are worth a word

export function banners(root, picture, link) {
  const all = [];
  if (link.state === 'lost') {
    all.push({ key: 'stream', text: `No connection to the server of this page since ${clock(link.since)}; trying again. What is shown is from then.` });
  }
  if (picture && !picture.consul.reachable) all.push({ key: 'consul', ...consul(picture.consul) });
  const wrong = picture ? picture.services.flatMap((s) => s.instances).filter((i) => Math.abs(i.clock_off_seconds ?? 0) >= off) : [];
  if (wrong.length > 0) all.push({ key: 'clocks', text: clocks(wrong) });
  keep(root, all, (b) => b.key, (b) => el('p', { class: `banner ${b.key}` }), (p, b) => say(p, b.text));
}

function consul({ since, error }) {
  const t = parsed(since);
  return {
    text: `Consul can't be asked${t === null ? '' : ` since ${clock(t)}`}${error ? `: ${error}` : ''}. The mesh goes on with what Consul said last, and that is shown.`,
  };
}

function clocks(instances) {
  const some = instances.slice(0, 3).map((i) => `${i.id} ${duration(Math.abs(i.clock_off_seconds))} ${i.clock_off_seconds > 0 ? 'ahead' : 'behind'}`);
  const rest = instances.length - some.length;
  return `Clocks differ: ${some.join(', ')}${rest > 0 ? ` and ${count(rest, 'other')}` : ''}. Times on this page are by the clock of its server.`;
}
