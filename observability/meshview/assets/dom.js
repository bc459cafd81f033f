// Elements, made and kept. What comes from the mesh gets into the page as text and as
// attribute values only, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

// el makes an element: its attributes (null, undefined and false leave one out, true
// sets an empty one), and its children, of which strings are text.
export function el(name, attributes = {}, ...children) {
  return made(document.createElement(name), attributes, children);
}

// svg makes an element of SVG.
export function svg(name, attributes = {}, ...children) {
  return made(document.createElementNS(SVG, name), attributes, children);
}

function made(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    set(node, name, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

// set writes an attribute if it is another one now.
export function set(node, name, value) {
  if (value === null || value === undefined || value === false) {
    node.removeAttribute(name);
    return;
  }
  const text = value === true ? '' : String(value);
  if (node.getAttribute(name) !== text) {
    node.setAttribute(name, text);
  }
}

// say writes a text if it is another one now, so that nothing is announced twice.
export function say(node, text) {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

// mark is the sign of a kind of state or event; its shape is in page.html. What it
// means stands beside it in words.
export function mark(kind) {
  return svg('svg', { class: `mark k-${kind}`, viewBox: '0 0 12 12', 'aria-hidden': 'true' },
    svg('use', { href: `#mark-${kind}` }));
}

// remark turns a mark into that of another kind.
export function remark(node, kind) {
  set(node, 'class', `mark k-${kind}`);
  set(node.firstElementChild, 'href', `#mark-${kind}`);
}

const kept = new WeakMap(); // parent: its children by key

// keep makes the children of parent those of the items, in their order: a child stays
// the same element as long as its item's key is there, so that focus stays too. What
// parent was served with goes.
export function keep(parent, items, keyOf, make, update = () => {}) {
  if (!kept.has(parent)) parent.replaceChildren();
  const old = kept.get(parent) ?? new Map();
  const now = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!now.has(key)) {
      now.set(key, item);
    }
  }
  for (const [key, node] of old) {
    if (!now.has(key) && node.parentNode === parent) {
      node.remove();
    }
  }
  let at = parent.firstElementChild;
  for (const [key, item] of now) {
    const node = old.get(key) ?? make(item);
    update(node, item);
    now.set(key, node);
    if (node === at) {
      at = at.nextElementSibling;
    } else {
      parent.insertBefore(node, at);
    }
  }
  kept.set(parent, now);
}

// outside is a link to another program, or null: only http and https lead anywhere.
export function outside(address, text) {
  if (!/^https?:\/\//.test(address ?? '') || !URL.canParse(address)) {
    return null;
  }
  return el('a', { href: address, rel: 'noreferrer' }, text);
}
