// Where the services stand. The same picture has the same places everywhere: nothing
// here is drawn at random, or depends on what was there before.

// layout puts each service that calls or is called into a column, right of all that
// call it. It returns
//   columns  of places, from left to right: {service} or {lane, edge}. A call that
//            passes over a column has a lane there, which keeps its room;
//   routes   of the calls: {edge, lanes, back}. A call that closes a circle goes
//            back; it counts for no column;
//   rest     of the services, which nothing is known to call.
export function layout(services, edges) {
  const names = services.map((s) => s.name).sort();
  const known = new Set(names);
  const calls = edges.filter((e) => known.has(e.from) && known.has(e.to))
    .sort((a, b) => compare(a.from, b.from) || compare(a.to, b.to));
  const back = circles(names, calls);
  const forward = calls.filter((e) => !back.has(e));
  const column = columnsOf(forward);

  const called = new Set(calls.flatMap((e) => [e.from, e.to]));
  const columns = [];
  for (const name of names.filter((n) => called.has(n))) {
    const at = column.get(name) ?? 0;
    (columns[at] ??= []).push({ key: name, service: name, before: [] });
  }
  const places = new Map(columns.flat().map((p) => [p.key, p]));
  const routes = calls.map((edge) => {
    if (back.has(edge)) return { edge, lanes: [], back: true };
    let last = places.get(edge.from);
    const lanes = [];
    for (let at = column.get(edge.from) + 1; at < column.get(edge.to); at++) {
      const lane = { key: keyOf(edge), lane: true, edge, before: [last] };
      columns[at].push(lane);
      lanes.push(lane.key);
      last = lane;
    }
    places.get(edge.to).before.push(last);
    return { edge, lanes, back: false };
  });
  for (const places of columns) order(places);
  return { columns, routes, rest: names.filter((n) => !called.has(n)) };
}

// keyOf names a call; no service's name has a line break.
export function keyOf(edge) {
  return `${edge.from}\n${edge.to}`;
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

// circles returns the calls that lead back to one that is on the way there, among
// them a service's calls to itself. It begins at those that nobody calls.
function circles(names, calls) {
  const back = new Set();
  const state = new Map(); // name: 'open' while on the way, then 'done'
  const visit = (name) => {
    state.set(name, 'open');
    for (const edge of calls.filter((e) => e.from === name)) {
      if (state.get(edge.to) === 'open') back.add(edge);
      else if (!state.has(edge.to)) visit(edge.to);
    }
    state.set(name, 'done');
  };
  const called = new Set(calls.map((e) => e.to));
  for (const name of [...names.filter((n) => !called.has(n)), ...names]) {
    if (!state.has(name)) visit(name);
  }
  return back;
}

// columnsOf returns the length of the longest way to each service.
function columnsOf(forward) {
  const column = new Map();
  const place = (name) => {
    if (!column.has(name)) {
      const callers = forward.filter((e) => e.to === name);
      column.set(name, Math.max(0, ...callers.map((e) => place(e.from) + 1)));
    }
    return column.get(name);
  };
  for (const edge of forward) place(edge.to), place(edge.from);
  return column;
}

// order sorts a column by where its callers stand, so that few calls cross; a lane
// comes above a service, to pass over it.
function order(places) {
  for (const place of places) {
    const sum = place.before.reduce((s, p) => s + p.height, 0);
    place.wish = place.before.length > 0 ? sum / place.before.length : 0;
  }
  places.sort((a, b) => a.wish - b.wish || (b.lane ?? false) - (a.lane ?? false) || compare(a.key, b.key));
  places.forEach((place, i) => { place.height = (i + 1) / (places.length + 1); });
}
