// A tap shows the next screen without loading a page: its body is put in the place of this one's, in a third of the time.
// The address bar is replaced, never added to: there is nothing to go back to after a session (a browser's history
// outlives Clear-Site-Data). Without this script every link and form works as a link and a form.
const AGAIN_AFTER_MS = 300; // a trembling finger taps twice
const TRY_AGAIN_MS = 1000;
const version = (page) => page.querySelector("script[src]")?.getAttribute("src"); // an update brings new files
let goneAt = -AGAIN_AFTER_MS;
let asked = 0;

export async function go(address, sent) {
  const mine = ++asked;
  try {
    const answer = await fetch(address, sent || { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine !== asked) return;
    if (!page.getElementById("page")) throw new Error("no screen");
    if (version(page) === version(document)) show(page, answer.url);
    else location.replace(answer.url);
  } catch {
    // The server is away, for an update as a rule: a browser's own error page would be the end, so the way is tried again.
    if (mine !== asked) return;
    document.getElementById("lost").hidden = false;
    if (!sent) setTimeout(() => mine === asked && go(address), TRY_AGAIN_MS);
  }
}

function show(page, address) {
  const root = document.documentElement;
  root.lang = page.documentElement.lang;
  root.className = page.documentElement.className;
  document.title = page.title;
  document.body.replaceWith(document.adoptNode(page.body));
  history.replaceState(null, "", address);
  document.getElementById("title").focus({ preventScroll: true });
  document.dispatchEvent(new Event("screen"));
}

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
