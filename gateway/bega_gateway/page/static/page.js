// Keeps a page true without loading it again: it is fetched once more every few seconds while somebody looks, and only the
// parts marked data-live that differ are put in the place of the old ones. Without this script a reload does the same.
"use strict";

const EVERY_MS = 4000;
const LOST_AFTER_MS = 20000;
let heardAt = performance.now();
let isFetching = false;

async function refresh() {
  if (isFetching || document.visibilityState !== "visible" || !document.querySelector("[data-live]")) return;
  isFetching = true;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", headers: { "X-Refresh": "1" }, signal: AbortSignal.timeout(15000) });
    if (answer.redirected) location.assign(answer.url); // the session is over
    else if (answer.ok) {
      put(new DOMParser().parseFromString(await answer.text(), "text/html"));
      heardAt = performance.now();
    }
  } catch {
    // The gateway is away: it is asked again, and the page says so in the meantime.
  } finally {
    isFetching = false;
    document.getElementById("lost").hidden = performance.now() - heardAt < LOST_AFTER_MS;
  }
}

function put(page) {
  const held = document.activeElement ? document.activeElement.id : "";
  const scrolled = document.getElementById("bytes-scrolled");
  const [left, top] = scrolled ? [scrolled.scrollLeft, scrolled.scrollTop] : [0, 0];
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(old.id);
    if (fresh && old.innerHTML !== fresh.innerHTML && !isMarked(old)) old.replaceChildren(...document.adoptNode(fresh).childNodes);
  }
  const again = held && document.getElementById(held);
  if (again && again !== document.activeElement) again.focus({ preventScroll: true });
  const box = document.getElementById("bytes-scrolled");
  if (box) box.scrollTo(left, top);
}

function isMarked(part) { // bytes that somebody has marked to copy them are not taken away
  const marked = getSelection();
  return !marked.isCollapsed && marked.rangeCount > 0 && marked.getRangeAt(0).intersectsNode(part);
}

if (location.search) history.replaceState(null, "", location.pathname); // what was done is said once
setInterval(refresh, EVERY_MS);
document.addEventListener("visibilitychange", refresh);
