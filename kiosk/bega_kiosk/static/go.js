// A tap shows the next screen without loading a page: its body is put in the place of this one's, in a third of the time.
// The address bar is replaced, never added to: there is nothing to go back to after a session (a browser's history
// outlives Clear-Site-Data). Without this script every link and form works as a link and a form.
const AGAIN_AFTER_MS = 300; // a trembling finger taps twice
const TRY_AGAIN_MS = 1000;
const FRESH_MS = 2000; // who holds a key for longer gets what is true when it is let go
const version = (page) => page.querySelector("script[src]")?.getAttribute("src"); // an update brings new files
let goneAt = -AGAIN_AFTER_MS;
let asked = 0;
let early = null; // what the finger that is still on a key has asked for: that one screen, and forgotten with it

export async function load(address, sent) {
  const answer = await fetch(address, sent || { cache: "no-store" });
  return { page: new DOMParser().parseFromString(await answer.text(), "text/html"), url: answer.url };
}

function loaded(address) {
  const found = early;
  early = null;
  return found && found.address === address && performance.now() - found.at < FRESH_MS ? found.answer : load(address);
}

export async function go(address, sent) {
  const mine = ++asked;
  try {
    const { page, url } = await (sent ? load(address, sent) : loaded(address));
    if (mine !== asked) return;
    if (!page.getElementById("page")) throw new Error("no screen");
    if (version(page) === version(document)) show(page, url);
    else location.replace(url);
  } catch {
    // The server is away, for an update as a rule: a browser's own error page would be the end, so the way is tried again.
    if (mine !== asked) return;
    document.getElementById("lost").hidden = false;
    if (!sent) setTimeout(() => mine === asked && go(address), TRY_AGAIN_MS);
  }
}

export function show(page, address) {
  const root = document.documentElement;
  const wanted = page.documentElement;
  if (root.lang !== wanted.lang) root.lang = wanted.lang; // each makes all of the page's style anew
  if (root.className !== wanted.className) root.className = wanted.className;
  document.title = page.title;
  document.body.replaceWith(document.adoptNode(page.body));
  history.replaceState(null, "", address);
  (document.querySelector("[autofocus]") || document.getElementById("title")).focus({ preventScroll: true });
  document.dispatchEvent(new Event("screen"));
}

// A finger rests on a key for a tenth of a second: time enough for the server. A keyboard's text goes first (keys.js).
addEventListener("pointerdown", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || event.button !== 0 || document.getElementById("text")) return;
  early = { address: link.href, at: performance.now(), answer: load(link.href) };
  early.answer.catch(() => {}); // said when it is wanted
});

addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const now = performance.now();
  if (now - goneAt < AGAIN_AFTER_MS) return;
  goneAt = now;
  go(link.href);
});

addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  go(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, event.submitter)), cache: "no-store" });
});
