// The page: it draws what it was served with, and then what the stream tells.

import { ask } from './ask.js';
import { banners } from './banners.js';
import { detail } from './detail.js';
import { el, keep, mark, say, set } from './dom.js';
import { map } from './map.js';
import { follow } from './stream.js';
import { table } from './table.js';
import { timeline } from './timeline.js';
import { address, ago, count, kindOf, kinds, setClock, tally } from './words.js';

const alarming = ['critical', 'out', 'missing', 'silent']; // counted in the title of the window

const at = (id) => document.getElementById(id);

let picture = null;
let chosen = null; // {service, key, id} of the instance in the panel; a key is of one service only
let link = { state: 'connecting', since: Date.now() };

const drawing = map(at('map'), (service, key) => choose(service, key, true));
const panel = detail(at('detail'), () => choose(null, null, true));
const rows = table(at('instances'), at('calls'));
const events = timeline({
  list: at('events'), kind: at('event-kind'), word: at('event-word'), said: at('said'), more: at('more-events'),
  linkOf: (event) => event.instance && address(event.service, event.instance),
});
ask(at('ask-form'), at('answer'));

function show(next) {
  picture = next;
  setClock(picture.at);
  drawing.show(picture);
  rows(picture);
  summary();
  refresh();
}

// refresh draws what depends on the time, the choice and the stream as well.
function refresh() {
  const instance = chosen && instancesOf(chosen.service).find((i) => i.key === chosen.key);
  if (instance) {
    chosen.id = instance.id;
    panel.show(chosen.service, instance, picture.consul);
  } else if (chosen) {
    panel.gone(chosen.id ?? chosen.key);
  }
  banners(at('banners'), picture, link);
  set(at('live'), 'data-state', link.state);
  say(at('live').lastElementChild, { live: 'Live', connecting: 'Connecting', lost: 'Reconnecting' }[link.state]);
}

function summary() {
  const instances = picture.services.flatMap((s) => s.instances);
  const items = [
    { kind: '', text: count(picture.services.length, 'service') },
    { kind: '', text: count(picture.services.reduce((sum, s) => sum + s.total, 0), 'instance') },
    ...tally(instances).map((t) => ({ kind: t.kind, text: `${t.count} ${kinds[t.kind]}` })),
  ];
  keep(at('summary'), items, (i) => i.kind || i.text.split(' ')[1], (i) => el('li', {}, i.kind && mark(i.kind), el('span')), (li, i) => say(li.lastElementChild, i.text));
  const wrong = instances.filter((i) => alarming.includes(kindOf(i))).length;
  document.title = `${wrong > 0 ? `(${wrong}) ` : ''}Mesh – rollcall`;
}

// choose opens an instance in the panel, or closes it. The address tells which one is
// open, so that it can be sent to somebody.
function choose(service, key, move) {
  const before = chosen;
  chosen = key === null || before?.key === key ? null : { service, key };
  drawing.choose(chosen?.key ?? null);
  history.replaceState(null, '', chosen ? address(service, key) : location.pathname + location.search);
  if (!chosen) {
    panel.hide();
    if (move && before) drawing.dot(before.service, before.key)?.focus();
    return;
  }
  refresh();
  if (move) panel.focus();
}

function instancesOf(service) {
  return picture?.services.find((s) => s.name === service)?.instances ?? [];
}

// arrive opens what the address names: #service, or #service/instance by its key or ID.
function arrive() {
  const [service, name] = location.hash.slice(1).split('/').map(decoded);
  if (name) {
    const key = instancesOf(service).find((i) => i.key === name || i.id === name)?.key ?? name;
    if (chosen?.key !== key) choose(service, key, true);
  } else if (service) {
    const node = drawing.card(service);
    node?.scrollIntoView({ block: 'center' });
    node?.querySelector('h3').focus({ preventScroll: true });
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function view(name) {
  document.documentElement.dataset.view = name;
  for (const each of ['picture', 'table']) set(at(`as-${each}`), 'aria-pressed', String(each === name));
  if (picture) drawing.show(picture);
}

for (const each of ['picture', 'table']) at(`as-${each}`).addEventListener('click', () => view(each));
addEventListener('hashchange', arrive);
setInterval(() => {
  for (const node of document.querySelectorAll('[data-ago]')) say(node, ago(Number(node.dataset.ago)));
}, 1000);

const served = JSON.parse(at('now').textContent);
view('picture');
events.add(served.events ?? [], true);
if (served.picture) show(served.picture);
events.draw();
arrive();
follow({
  picture: show,
  happened: (event) => events.add([event]),
  state: (state) => {
    link = { state, since: link.state === state ? link.since : Date.now() };
    refresh();
  },
});
