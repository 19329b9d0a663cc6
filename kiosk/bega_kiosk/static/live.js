// Keeps a page true without loading it again. The server says when something changed; the page is fetched once more, and
// only the parts marked data-live that differ are put in the place of the old ones, inside boxes that keep their size.
const LOST_AFTER_MS = 120000;
let heardAt = performance.now();
let isFetching = false;
let isWanted = false;
const version = (page) => page.querySelector("script[src]")?.getAttribute("src"); // an update brings new files

async function refresh() {
  isWanted = true;
  if (isFetching) return;
  isFetching = true;
  try {
    while (isWanted) {
      isWanted = false;
      const address = location.href;
      const answer = await fetch(address, { cache: "no-store" });
      if (!answer.ok) return void answer.body?.cancel(); // unread, the browser would keep it for ever
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (address !== location.href) isWanted = true; // a tap came in between: these words belong to another screen
      else if (version(page) !== version(document) && !document.querySelector("#text, [data-stands-in]")) location.reload();
      else put(page);
      heardAt = performance.now();
      show(false);
    }
  } catch {
    // The server is away: EventSource connects again by itself, and show() says so in the meantime.
  } finally {
    isFetching = false;
  }
}

function put(page) {
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(old.id);
    if (!fresh) continue;
    if (old.className !== fresh.className) old.className = fresh.className;
    if (old.dataset.live === "attributes") continue;
    // A reader that speaks says each change of the verdict: it is touched only when its words differ.
    if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...document.adoptNode(fresh).childNodes);
  }
}

function show(isLost) {
  document.getElementById("lost").hidden = !isLost;
  document.body.classList.toggle("is-lost", isLost);
}

const live = new EventSource("/live");
live.addEventListener("changed", refresh);
addEventListener("pagehide", () => live.close());
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
setInterval(() => show(performance.now() - heardAt > LOST_AFTER_MS), 5000);
