// What a person could not read or reach on the screen that is shown; kiosk_gate.py puts this into its page once. A measure
// returns what is wrong, in words; [] is a good screen.
const words = (text) => text.trim().replace(/\s+/g, ' ').slice(0, 40);
const name = (text) => JSON.stringify(words(text));
const OURS = '"Atkinson Hyperlegible Next", "Noto Sans"';
const keysOf = () => [...document.querySelectorAll('a, button, input, textarea')];

async function asked(address) {
  const answer = await fetch(address, {cache: 'no-store'});
  if (!answer.ok) throw new Error(`${address} answers ${answer.status}`);
  return answer.text();
}

// Show a screen as a tap does: by the kiosk's own script, without a page load.
let shown = '';
async function show(address, html) {
  shown = html || await asked(address);
  const tap = await import(document.querySelector('script[src*="/go.js"]').src);
  tap.show(new DOMParser().parseFromString(shown, 'text/html'), address);
  await document.fonts.ready;
}

// Show in dark what is shown: where its page is the same, letter for letter, only the colours change.
const undarkened = (html) => html.replaceAll('&amp;look=dark', '').replace(/(<html [^>]*class="[^"]*) dark/, '$1');
async function darken(address) {
  const html = await asked(address);
  if (undarkened(html) !== undarkened(shown)) return show(address, html);
  document.documentElement.className = html.match(/<html [^>]*class="([^"]*)"/)[1];
  history.replaceState(null, '', address);
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
  for (const field of document.querySelectorAll('textarea')) {
    const style = getComputedStyle(field);
    const line = parseFloat(style.lineHeight) + parseFloat(style.paddingTop) + parseFloat(style.paddingBottom);
    if (field.clientHeight < line - 1) wrong.push('no room for a line of what is typed');
  }
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
const reach = () => keysOf().filter((key) => !key.matches('textarea') && key.getBoundingClientRect().top < innerHeight / 2 - 1)
  .map((key) => 'in the upper half: ' + words(key.textContent));

const count = (most) => document.querySelectorAll('main a').length > most ? ['more things than a screen may offer'] : [];

// What the rules of axe see that look at no place, size or colour: elements and attributes in their order. Of words they
// see whether there are any, and which are the same. How it is styled follows from that, and from the classes of <html>.
const WORDS = new Set(['aria-label', 'title', 'alt', 'value', 'lang', 'href', 'action', 'data-then']);
function shape() {
  const known = new Map();
  const same = (text) => {
    const plain = words(text).toLowerCase();
    if (plain === '' || plain.startsWith('#')) return plain;
    if (!known.has(plain)) known.set(plain, known.size);
    return known.get(plain);
  };
  const of = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return same(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE) return '';
    const said = [...node.attributes].map(({name: is, value}) => {
      if (is === 'class' && node === document.documentElement) return value.replace(' dark', '');
      if (node.namespaceURI !== document.documentElement.namespaceURI && !/^(aria-|role|id|class|tabindex)/.test(is)) return '';
      return `${is}=${WORDS.has(is) ? same(value) : value}`;
    });
    return `<${node.localName} ${said.join(' ')}>${[...node.childNodes].map(of).join(',')}</>`;
  };
  return of(document.documentElement);
}

// Rules that look at places, sizes, colours and languages: asked in every look. What the others found stands for each
// screen of the same shape.
const LOOKING = ['color-contrast', 'color-contrast-enhanced', 'link-in-text-block', 'target-size',
  'scrollable-region-focusable', 'html-has-lang', 'html-lang-valid', 'html-xml-lang-mismatch', 'valid-lang',
  'document-title'];
const unlooking = new Map();
async function axed(options) {
  const mine = shape();
  const isNew = !unlooking.has(mine);
  const found = await axe.run(document, isNew ? options : {...options, runOnly: {type: 'rule', values: LOOKING}});
  if (found.passes.length < (isNew ? 16 : 3)) throw new Error('axe looked at nothing');
  const said = ({id, nodes}) => `${id}: ${nodes[0].html}`;
  if (isNew) unlooking.set(mine, found.violations.filter(({id}) => !LOOKING.includes(id)).map(said));
  return [...found.violations.filter(({id}) => LOOKING.includes(id)).map(said), ...unlooking.get(mine)];
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

// Show the first of these addresses, and what is like it in dark; return what is so of each.
async function look(asked) {
  const said = [];
  for (const address of asked.addresses) {
    await (said.length ? darken : show)(address);
    said.push(await judge(asked));
  }
  return said;
}

window.gate = {show, look, measure, judge};
