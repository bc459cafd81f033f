// What happened, newest first.

import { el, keep, mark, say } from './dom.js';
import { clock, count, kinds, parsed } from './words.js';

const held = 1000; // events, as the server holds
const drawn = 200;
const pause = 4000; // milliseconds between two announcements to a screen reader

const groups = {
  trouble: ['out', 'missing', 'consul-lost', 'panic'],
  members: ['joined', 'left', 'missing'],
  health: ['state', 'out', 'back', 'panic', 'panic-over'],
  consul: ['consul-lost', 'consul-found'],
  changes: ['version', 'routes'],
};

// The marks of events: those of a state where the event leads to one.
const marks = {
  joined: 'joined', left: 'left', out: 'out', back: 'passing', missing: 'missing', state: 'change', version: 'change', routes: 'change',
  'consul-lost': 'critical', 'consul-found': 'passing', panic: 'warning', 'panic-over': 'passing',
};

// timeline shows events in list, those that kind (a select) and word (an input) let
// through; said is told of new ones, more than which is told by more.
export function timeline({ list, kind, word, said, more, linkOf }) {
  let events = []; // newest first
  let unsaid = [];
  let timer = 0;

  const wanted = (event) => {
    const group = groups[kind.value];
    const text = word.value.trim().toLowerCase();
    return (!group || group.includes(event.kind))
      && (text === '' || `${event.service} ${event.instance} ${event.by} ${event.text}`.toLowerCase().includes(text));
  };

  function draw() {
    const chosen = events.filter(wanted);
    keep(list, chosen.slice(0, drawn), (e) => e.seq, (e) => entry(e, linkOf));
    const rest = chosen.length - drawn;
    say(more, chosen.length === 0 ? (events.length === 0 ? 'Nothing so far.' : 'Nothing of this kind.') : rest > 0 ? `and ${rest} older` : '');
  }

  // add takes events in any order, those that it has among them.
  function add(some, silent = false) {
    const have = new Set(events.map((e) => e.seq));
    const fresh = some.filter((e) => !have.has(e.seq));
    if (fresh.length === 0) return;
    events = [...events, ...fresh].sort((a, b) => b.seq - a.seq).slice(0, held);
    draw();
    if (!silent) {
      unsaid.push(...fresh);
      timer ||= setTimeout(announce, pause);
    }
  }

  function announce() {
    timer = 0;
    said.textContent = unsaid.length === 1 ? unsaid[0].text : `${count(unsaid.length, 'event')}, the last: ${unsaid.at(-1).text}`;
    unsaid = [];
  }

  kind.addEventListener('change', draw);
  word.addEventListener('input', draw);
  return { add, draw };
}

function entry(event, linkOf) {
  const t = parsed(event.at) ?? 0;
  const kind = event.kind in marks ? marks[event.kind] : event.kind in kinds ? event.kind : 'change';
  const link = linkOf(event);
  return el('li', { 'data-kind': event.kind },
    el('time', { datetime: event.at, title: new Date(t).toLocaleString() }, clock(t)), mark(kind),
    link ? el('a', { href: link }, event.text) : el('span', {}, event.text));
}
