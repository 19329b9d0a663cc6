// The keyboard on the screen without the way to the server: each key is a button of a form, which works without this.
const box = () => document.getElementById("text");
const isStart = (text) => text === "" || /[.?!] $/.test(text);

addEventListener("click", async (event) => {
  const text = box();
  if (!text) return;
  const key = event.target.closest("button[name='key']");
  if (key && (key.value.length === 1 || key.value === "erase")) {
    event.preventDefault();
    if (key.value === "erase") text.value = [...text.value].slice(0, -1).join("");
    else if (text.value.length < text.maxLength) text.value += isStart(text.value) ? key.value.toUpperCase() : key.value;
    text.scrollTop = text.scrollHeight;
    return;
  }
  const link = event.target.closest("a[href^='/']");
  if (!link || event.defaultPrevented || link.pathname === "/") return; // home throws it away
  // Whoever looks at another screen finds the text again: it goes to the draft first, which may begin with it.
  event.preventDefault();
  event.stopImmediatePropagation();
  const sent = new URLSearchParams({ text: text.value, key: "keep" });
  const answer = await fetch(text.form.action, { method: "POST", body: sent, cache: "no-store" }).catch(() => null);
  answer?.body?.cancel(); // its words are not wanted; unread, the browser would keep them for ever
  const draft = answer && new URL(answer.url).searchParams.get("draft");
  if (draft) {
    const to = new URL(link.href);
    to.searchParams.set("draft", draft);
    link.setAttribute("href", to.pathname + to.search); // as go.js knows ours: a whole address would load a page
  }
  text.removeAttribute("id");
  link.click();
}, true);
