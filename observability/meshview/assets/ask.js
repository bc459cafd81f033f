// Ask: where a request for a path or a service would go, and why. Nothing is sent for
// it; where the operator has switched it on, a button sends one.

import { el, mark, say } from './dom.js';
import { count, duration, kinds } from './words.js';

const limit = 15000; // milliseconds for an answer, that of a real request among them
const listed = 12; // instances in one turn

const turns = { first: 'Asked first', after: 'Asked after those', last: 'Asked last', never: 'Not asked' };

// ask answers the form's questions in answer.
export function ask(form, answer) {
  let last = 0; // number of the last question: a late answer to another is dropped

  async function question(request, draw) {
    const own = ++last;
    try {
      const response = await request(AbortSignal.timeout(limit));
      const got = await response.json();
      if (own !== last) return;
      answer.replaceChildren(...(response.ok ? draw(got) : [el('p', {}, got.detail ?? got.title ?? `It answers ${response.status}.`)]));
    } catch (trouble) {
      if (own === last) say(answer, `There was no answer: ${trouble.message}`);
    }
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const q = new FormData(form).get('q').trim();
    if (q === '') return;
    question((signal) => fetch(`ask?q=${encodeURIComponent(q)}`, { signal }), (got) => explained(got, () => {
      question((signal) => fetch('try', { method: 'POST', body: new URLSearchParams({ q }), signal }), tried);
    }));
  });
}

function explained(got, send) {
  const parts = got.words.map((words) => el('p', {}, words));
  for (const [turn, title] of Object.entries(turns)) {
    const choices = got.choices.filter((c) => c.turn === turn);
    if (choices.length === 0) continue;
    const rest = choices.length - listed;
    parts.push(el('h3', {}, title), el('ul', { class: 'list' }, ...choices.slice(0, listed).map(choice), rest > 0 && el('li', { class: 'wide muted' }, `and ${rest} more`)));
  }
  if (got.try && got.path) {
    const button = el('button', { type: 'button' }, `Send one GET for ${got.question}`);
    button.addEventListener('click', send);
    parts.push(button);
  }
  return parts;
}

function choice(c) {
  const numbers = [
    c.latency_seconds > 0 && `${duration(c.latency_seconds)} expected`, c.in_flight > 0 && `${c.in_flight} in flight`, c.weight !== 1 && `weight ${c.weight}`,
  ].filter((n) => n !== false);
  return el('li', {}, mark(c.state in kinds ? c.state : 'critical'), el('div', {}, el('strong', {}, c.id), ` ${c.why}`, numbers.length > 0 && el('div', { class: 'muted' }, numbers.join(' · '))));
}

function tried(got) {
  return [
    el('p', {}, got.status > 0 ? `${got.service} answered ${got.status} to a GET for ${got.path}, after ${duration(got.took_seconds)} and ${count(got.tries.length, 'try', 'tries')}.`
      : `A GET for ${got.path} at ${got.service} failed after ${duration(got.took_seconds)} and ${count(got.tries.length, 'try', 'tries')}: ${got.error}`),
    el('ol', { class: 'list' }, ...got.tries.map((t) => el('li', {}, mark(t.used ? 'passing' : 'critical'),
      el('div', {}, el('strong', {}, t.instance), ` ${t.outcome}${t.status > 0 ? ` ${t.status}` : ''}${t.error ? `: ${t.error}` : ''} after ${duration(t.took_seconds)}`)))),
  ];
}
