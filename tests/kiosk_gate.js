// What a person could not read or reach on the screen that is shown; kiosk_gate.py puts this into its page once. A measure
// returns what is wrong, in words; [] is a good screen.
const words = (text) => text.trim().replace(/\s+/g, ' ').slice(0, 40);
const name = (text) => JSON.stringify(words(text));
const OURS = '"Atkinson Hyperlegible Next", "Noto Sans"';
const keysOf = () => [...document.querySelectorAll('a, button, input')];

// Show a screen as a tap does: by the kiosk's own script, without a page load.
async function show(address) {
  const {go} = await import(document.querySelector('script[src*="/go.js"]').src);
  await go(address);
  await document.fonts.ready;
  if (location.pathname + location.search !== address) throw new Error(`${address} led to ${location.href}`);
}

// Boxes of letters are taken from the font's own ascent to descent, which reach beyond what is inked: a fifth of them at
// either end may touch.
function measure(pxPerMm, smallestPx) {
  const wrong = [];
  const box = (r) => ({left: r.left, right: r.right, top: r.top + r.height * .2, bottom: r.bottom - r.height * .2});
  if (document.documentElement.scrollWidth > innerWidth || document.documentElement.scrollHeight > innerHeight)
    wrong.push('the page is larger than the panel');
  for (const key of document.querySelectorAll('a, button, input, summary')) {
    const r = key.getBoundingClientRect();
    if (Math.min(r.width, r.height) < 20 * pxPerMm - .5) wrong.push('smaller than 20 mm: ' + name(key.textContent));
    if (r.left < 0 || r.top < 0 || r.right > innerWidth || r.bottom > innerHeight)
      wrong.push('outside the panel: ' + name(key.textContent));
  }
  const runs = [];
  const isOut = (b, pane) => b.left < pane.left || b.right > pane.right || b.top < pane.top || b.bottom > pane.bottom;
  // Boxes that cut what leaves them; .place is the one text that may be cut, with an ellipsis.
  const cutters = [...document.body.querySelectorAll('*')]
    .filter((box) => getComputedStyle(box).overflow !== 'visible' && !box.matches('.place, .spoken, textarea'));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const parent = node.parentElement;
    if (!node.textContent.trim() || parent.closest('.spoken, [hidden]') || !parent.checkVisibility()) continue;
    const style = getComputedStyle(parent);
    const size = parseFloat(style.fontSize);
    if (size < smallestPx - .1) wrong.push(`letters of ${size} px: ` + name(node.textContent));
    if (!style.fontFamily.startsWith(OURS)) wrong.push('in other letters: ' + name(node.textContent));
    const range = document.createRange();
    range.selectNodeContents(node);
    const holder = parent.closest('.button, .tile, .card') || document.documentElement;
    const pane = holder === document.documentElement
      ? {left: 0, top: 0, right: innerWidth, bottom: innerHeight} : holder.getBoundingClientRect();
    for (const rect of range.getClientRects()) {
      const b = box(rect);
      const place = parent.closest('.place');
      if (place && b.top > place.getBoundingClientRect().bottom) continue;
      if (isOut(b, pane)) wrong.push('out of its box: ' + name(node.textContent));
      if (cutters.some((box) => box.contains(parent) && isOut(b, box.getBoundingClientRect())))
        wrong.push('cut off: ' + name(node.textContent));
      runs.push({...b, parent, text: node.textContent});
    }
  }
  for (const a of runs) for (const b of runs)
    if (a.parent !== b.parent && a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 1 && b.top < a.bottom - 1)
      wrong.push('on top of each other: ' + name(a.text) + ' ' + name(b.text));
  const keys = keysOf().map((key) => ({key, r: key.getBoundingClientRect()}));
  for (const [at, {key, r}] of keys.entries()) for (const other of keys.slice(at + 1))
    if (r.left < other.r.right - 1 && other.r.left < r.right - 1 && r.top < other.r.bottom - 1
        && other.r.top < r.bottom - 1)
      wrong.push('keys on top of each other: ' + name(key.textContent) + ' ' + name(other.key.textContent));
  for (const plot of document.querySelectorAll('.plot'))
    if (Math.abs(plot.getBoundingClientRect().width - plot.width.baseVal.value) > 1) wrong.push('the plot is scaled');
  const isCyrillic = document.documentElement.lang === 'sr';
  const [font, letter] = isCyrillic ? ['Noto Sans', 'ж'] : ['Atkinson Hyperlegible Next', 'a'];
  if (!document.fonts.check(`40px "${font}"`, letter)) wrong.push('the letters are not ours');
  return [...new Set(wrong)];
}

// Where the keyboard goes, in turn, must be where the eye goes: down, and along each line.
function order() {
  const keys = keysOf().map((key) => [key, key.getBoundingClientRect()]);
  const wrong = [];
  for (let at = 1; at < keys.length; at++) {
    const [before, a] = keys[at - 1], [key, b] = keys[at];
    if (b.bottom <= a.top + 1 || (b.top < a.bottom - 1 && b.bottom > a.top + 1 && b.left < a.left))
      wrong.push(`${words(key.textContent)} comes after ${words(before.textContent)}`);
  }
  return wrong;
}

// With `reach` every key is in the lower half.
const reach = () => keysOf().filter((key) => key.getBoundingClientRect().top < innerHeight / 2 - 1)
  .map((key) => 'in the upper half: ' + words(key.textContent));

const count = (most) => document.querySelectorAll('main a').length > most ? ['more things than a screen may offer'] : [];

async function axed(options) {
  const found = await axe.run(document, options);
  if (found.passes.length < 16) throw new Error('axe looked at nothing');
  return found.violations.map((rule) => `${rule.id}: ${rule.nodes[0].html}`);
}

// Which parts of this screen its links lead to.
const parts = () => [...document.querySelectorAll('main a')].map((link) => new URL(link.href))
  .filter((url) => url.pathname === location.pathname).map((url) => Number(url.searchParams.get('page')) || 1);

// Everything of the screen that is shown.
async function judge(asked) {
  await document.fonts.ready;
  const wrong = [...measure(asked.pxPerMm, asked.smallestPx), ...order(), ...(asked.isReach ? reach() : []),
    ...count(asked.mostThings), ...(asked.axe ? await axed(asked.axe) : [])];
  return {wrong, parts: parts()};
}

window.gate = {show, measure, judge};
