// The rules of the page, over what the browser has made of it: a list of what is wrong.
(() => {
  const wrong = [];
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const named = (node) => `<${node.tagName.toLowerCase()}${node.id && ` id=${node.id}`}${typeof node.className === 'string' && node.className && ` class=${node.className}`}> ${node.textContent.trim().slice(0, 40)}`;
  const drawn = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getClientRects().length > 0;

  // Each id is there once, and what names one finds it.
  const ids = new Map();
  for (const node of all('[id]')) ids.set(node.id, (ids.get(node.id) ?? 0) + 1);
  for (const [id, n] of ids) if (n > 1) wrong.push(`the id ${id} is there ${n} times`);
  for (const name of ['aria-labelledby', 'aria-describedby', 'aria-controls', 'for']) {
    for (const node of all(`[${name}]`)) {
      for (const id of node.getAttribute(name).split(/\s+/)) if (!ids.has(id)) wrong.push(`${named(node)}: ${name} names ${id}, which is not there`);
    }
  }

  // Headings go down by one level at a time.
  let level = 0;
  for (const node of all('h1, h2, h3, h4, h5, h6').filter(drawn)) {
    const own = Number(node.tagName[1]);
    if (own > level + 1) wrong.push(`${named(node)} follows a heading of level ${level}`);
    if (node.textContent.trim() === '') wrong.push(`${named(node)} is empty`);
    level = own;
  }
  if (all('h1').length !== 1) wrong.push(`there are ${all('h1').length} h1`);

  // There is one main, and each part has a name.
  if (all('main').length !== 1) wrong.push(`there are ${all('main').length} main`);
  for (const node of all('nav, aside, section, article')) {
    if (!node.hasAttribute('aria-label') && !node.hasAttribute('aria-labelledby')) wrong.push(`${named(node)} has no name`);
  }
  if (document.documentElement.lang === '') wrong.push('the page has no language');
  if (document.title === '') wrong.push('the page has no title');

  // Nothing is reached by Tab before its turn, or where it is hidden.
  for (const node of all('[tabindex]')) if (node.tabIndex > 0) wrong.push(`${named(node)} has the tabindex ${node.tabIndex}`);
  for (const node of all('[aria-hidden="true"] :is(a, button, input, select, [tabindex])')) wrong.push(`${named(node)} is in what is hidden`);
  for (const node of all('img:not([alt])')) wrong.push(`${named(node)} has no alt`);
  for (const node of all('svg')) if (node.getAttribute('aria-hidden') !== 'true' && node.getAttribute('role') !== 'img') wrong.push(`${named(node)} is neither an image nor hidden`);
  for (const node of all('table').filter(drawn)) {
    if (!node.caption) wrong.push(`${named(node)} has no caption`);
    for (const cell of all('th', node)) if (!cell.scope) wrong.push(`${named(cell)} has no scope`);
  }

  // What is pressed is large enough (WCAG 2.5.8), but for marks in a dense grid, which
  // the arrow keys reach too, and links in text.
  for (const node of all('button, input, select').filter(drawn)) {
    const box = node.getBoundingClientRect();
    if ((box.width < 24 || box.height < 24) && !node.closest('.many, .dense, .huge')) wrong.push(`${named(node)} is ${box.width} by ${box.height} pixels`);
  }

  // Text has a contrast of 4.5, or 3 where it is large (WCAG 1.4.3).
  const channels = (colour) => {
    const m = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(colour);
    if (!m) wrong.push(`the colour ${colour} can't be read`);
    return m ? [Number(m[1]), Number(m[2]), Number(m[3]), m[4] === undefined ? 1 : Number(m[4])] : [0, 0, 0, 1];
  };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const paper = (node) => {
    if (!node) return [255, 255, 255, 1];
    const own = channels(getComputedStyle(node).backgroundColor);
    return own[3] === 1 ? own : over(own, paper(node.parentElement));
  };
  const luminance = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let checked = 0;
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    const range = document.createRange();
    range.selectNode(texts.currentNode);
    if (texts.currentNode.data.trim() === '' || !drawn(node) || node.closest('script, noscript, .heard, .skip') || range.getBoundingClientRect().width < 2) continue;
    const style = getComputedStyle(node);
    const [a, b] = [luminance(over(channels(style.color), paper(node))), luminance(paper(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < least) wrong.push(`${named(node)}: ${style.color} has a contrast of ${ratio.toFixed(2)}`);
    checked++;
  }
  if (checked < 30) wrong.push(`only ${checked} texts were checked`);
  return wrong;
})()
