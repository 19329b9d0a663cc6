// Whoever goes leaves nothing: what was about to be sent is thrown away with the way home, and when a screen is cleared
// that nobody touched. A minute before that a question stands in for it (pages/still.py); the screen itself is put aside
// whole, with what was typed in it, and comes back with any key or touch. Without this script the page's refresh asks.
const { go, load, show } = await import("./go.js" + new URL(import.meta.url).search); // the one that is there
const LOOKED_AT_MS = 5000;
const WALKING = ["Tab", "Shift", "Enter", " "]; // keys that lead about in the question
const CONTROLS = ["easier", "language", "human"];
let touchedAt = performance.now();
let aside = null; // the screen that the question stands in for
let isAsking = false;

const draftOf = (address) => new URL(address).searchParams.get("draft");
let draft = draftOf(location.href);

document.addEventListener("screen", () => {
  touchedAt = performance.now();
  aside = null;
  const next = draftOf(location.href);
  if (next !== draft && draft) fetch(`/end?draft=${draft}`, { method: "POST", keepalive: true }).catch(() => {});
  draft = next;
});

async function ask(address) {
  const [from, at] = [touchedAt, location.href];
  const { page, url } = await load(address);
  if (!page.getElementById("page")) throw new Error("no screen");
  if (touchedAt !== from || location.href !== at) return;
  const focused = document.activeElement;
  const screen = { body: document.body, title: document.title, address: at, focused };
  show(page, url);
  document.body.dataset.standsIn = "";
  aside = screen;
}

function putBack() {
  const { body, title, address, focused } = aside;
  document.body.replaceWith(body);
  document.title = title;
  history.replaceState(null, "", address);
  (focused === body ? document.getElementById("title") : focused).focus({ preventScroll: true });
  document.dispatchEvent(new Event("screen"));
}

function clear() {
  document.querySelector("main").replaceChildren(); // a server that is away lets nobody go home: nothing stays to be read
  go("/");
}

setInterval(async () => {
  const { untouchedS, then } = document.body.dataset;
  if (isAsking || !then || performance.now() - touchedAt < untouchedS * 1000) return;
  if (then === "/") return clear();
  isAsking = true;
  await ask(then).catch(() => performance.now() - touchedAt > untouchedS * 1000 + 60000 && clear());
  isAsking = false;
}, LOOKED_AT_MS);

addEventListener("pointerdown", () => { touchedAt = performance.now(); }, true);
addEventListener("keydown", (event) => {
  touchedAt = performance.now();
  if (!aside || WALKING.includes(event.key)) return;
  event.preventDefault(); // it says that somebody is there, and writes nothing
  putBack();
}, true);

addEventListener("click", (event) => {
  if (!aside || event.target.closest(".home")) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const control = CONTROLS.find((kind) => event.target.closest(`.${kind}`));
  putBack();
  if (control) document.querySelector(`.controls .${control}`).click(); // from the screen itself: its text goes to the draft first
}, true);
