// What the page says of states, numbers and times. page.html says the same before
// this runs, by the functions of face.go.

// kinds of an instance in the order of the legend, and the words for them.
export const kinds = {
  passing: 'passing',
  new: 'new',
  warning: 'warning',
  draining: 'draining',
  maintenance: 'in maintenance',
  critical: 'critical',
  out: 'out of use',
  missing: 'missing',
  silent: 'does not answer',
};

// kindOf tells which one mark an instance gets: what keeps requests away comes first.
export function kindOf(instance) {
  if (instance.missing) return 'missing';
  if (instance.out?.length > 0) return 'out';
  if (instance.state !== 'passing') return instance.state in kinds ? instance.state : 'critical';
  if (!instance.answered && instance.trouble) return 'silent';
  return instance.new ? 'new' : 'passing';
}

const some = 2; // that have it out are named in one line

// why an instance has that kind; empty where there is nothing to say.
export function why(instance) {
  const out = instance.out ?? [];
  const reasons = out.slice(0, some).map((o) => `${o.by}: ${o.reason}`);
  const more = Math.max(instance.out_by ?? 0, out.length) - some;
  if (more > 0) reasons.push(`${more} more`);
  if (instance.reason) reasons.push(instance.reason);
  if (!instance.answered && instance.trouble) reasons.push(instance.trouble);
  return reasons.join(' · ');
}

// tally counts the instances of each kind that there is.
export function tally(instances) {
  const counts = new Map();
  for (const instance of instances) {
    const kind = kindOf(instance);
    counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return Object.keys(kinds).filter((k) => counts.has(k)).map((kind) => ({ kind, count: counts.get(kind) }));
}

// lookOf is the word for how a call looks; what fails less often than one time in a
// hundred is no cause for red.
export function lookOf(edge) {
  if (!(edge.rate > 0)) return 'idle';
  return edge.failed / edge.rate >= 0.01 ? 'failing' : 'busy';
}

const space = '\u00a0'; // a number and its unit stay together

export function rate(perSecond) {
  if (!(perSecond > 0)) return '0/s';
  if (perSecond < 0.05) return '<0.1/s';
  if (perSecond < 10) return `${perSecond.toFixed(1)}/s`;
  if (perSecond < 10000) return `${Math.round(perSecond)}/s`;
  return `${(perSecond / 1000).toFixed(1)}k/s`;
}

export function share(part, whole) {
  if (!(whole > 0) || !(part > 0)) return `0${space}%`;
  const percent = 100 * part / whole;
  if (percent < 0.1) return `<0.1${space}%`;
  return `${percent < 10 ? percent.toFixed(1) : Math.round(percent)}${space}%`;
}

export function duration(seconds) {
  if (!(seconds > 0)) return '–';
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)}${space}µs`;
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)}${space}ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)}${space}ms`;
  if (seconds < 10) return `${seconds.toFixed(1)}${space}s`;
  if (seconds < 120) return `${Math.round(seconds)}${space}s`;
  if (seconds < 2 * 3600) return `${Math.round(seconds / 60)}${space}min`;
  if (seconds < 2 * 86400) return `${Math.round(seconds / 3600)}${space}h`;
  return `${Math.round(seconds / 86400)}${space}d`;
}

export function count(n, one, many = `${one}s`) {
  return `${n} ${n === 1 ? one : many}`;
}

// address is where the page shows an instance, by its key or ID.
export function address(service, instance) {
  return `#${encodeURIComponent(service)}/${encodeURIComponent(instance)}`;
}

// Times are told by the clock of the page's server, whatever the viewer's says.
let ahead = 0; // milliseconds that the server's clock is ahead of the viewer's

export function setClock(at) {
  const server = Date.parse(at);
  if (!Number.isNaN(server)) ahead = server - Date.now();
}

// parsed is a time of the mesh in milliseconds, or null if it is unset.
export function parsed(at) {
  const t = Date.parse(at ?? '');
  return t > 0 ? t : null;
}

export function ago(t) {
  const seconds = (Date.now() + ahead - t) / 1000;
  if (Math.abs(seconds) < 1) return 'now';
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

export function clock(t) {
  return new Date(t).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
}
