// Keeps what a page shows as it is now. Elements with data-live and an id are taken anew from the same page whenever something has
// changed: the worker says so by server-sent events, and without these the page asks by itself. It never gives up.
const secret = document.currentScript.dataset.page;
const ask = (address, more) => fetch(address, { cache: "no-store", headers: { "x-portreeve-page": secret }, ...more });

const local = () => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!isNaN(at)) {
      time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
      time.title = at.toString();
    }
  }
};

let renewing = false, again = false;
const renew = async () => {
  if (!document.querySelector("[data-live]")) return;
  if (renewing) { again = true; return; }
  renewing = true;
  try {
    const reply = await ask(location.href, { redirect: "manual" });
    if (reply.ok) {
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live]")) {
        const young = fresh.getElementById(old.id);
        const same = young && young.innerHTML === old.dataset.was;
        // Nobody loses the place where they type or read.
        if (young && !same && !(old.contains(document.activeElement) && document.activeElement.matches("input,select,textarea"))) {
          const focus = document.activeElement?.id;
          old.dataset.was = young.innerHTML;
          old.replaceChildren(...young.childNodes);
          if (focus && focus !== document.activeElement?.id) document.getElementById(focus)?.focus();
        }
      }
      local();
      document.body.removeAttribute("data-offline");
    } else if (reply.status === 401 || reply.type === "opaqueredirect") {
      document.body.dataset.offline = "signed-out";
    }
  } catch {
    document.body.dataset.offline = "yes";
  }
  renewing = false;
  if (again) { again = false; renew(); }
};

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// Server-sent events by fetch: EventSource can't show the page's secret.
const listen = async () => {
  const limit = new AbortController();
  let silent = setTimeout(() => limit.abort(), 30000);
  try {
    const reply = await ask("/api/v1/events", { signal: limit.signal });
    if (!reply.ok) return;
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silent);
      silent = setTimeout(() => limit.abort(), 30000);
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      if (events.some((event) => event.startsWith("event:"))) renew();
    }
  } catch { /* it begins anew */ } finally {
    clearTimeout(silent);
  }
};

(async () => {
  for (;;) {
    const began = Date.now();
    await listen();
    await renew();
    await sleep(Date.now() - began > 10000 ? 500 : 5000);
  }
})();

// What a job writes, as it comes.
const follow = async (shown) => {
  let offset = Number(shown.dataset.offset);
  for (;;) {
    const isOver = document.querySelector("[data-over]");
    try {
      const reply = await ask(`${shown.dataset.follow}&offset=${offset}`);
      if (reply.ok) {
        const text = await reply.text(), next = Number(reply.headers.get("x-portreeve-next"));
        const atEnd = shown.scrollHeight - shown.scrollTop - shown.clientHeight < 40;
        if (text) {
          shown.append(text);
          // A page is no place for gigabytes: the file itself has all of it.
          if (shown.textContent.length > 2e6) shown.textContent = shown.textContent.slice(-1e6);
          shown.closest("[hidden]")?.removeAttribute("hidden");
          if (atEnd) shown.scrollTop = shown.scrollHeight;
        }
        offset = next;
        if (isOver && next >= Number(reply.headers.get("x-portreeve-end"))) return;
        if (text.length > 100000) continue;
      }
    } catch { /* the portal is away: keep asking */ }
    await sleep(1500);
  }
};

local();
for (const live of document.querySelectorAll("[data-live]")) live.dataset.was = live.innerHTML;
for (const shown of document.querySelectorAll("[data-follow]")) { shown.scrollTop = shown.scrollHeight; follow(shown); }
for (const form of document.querySelectorAll("form[data-sure]")) {
  form.addEventListener("submit", (event) => { if (!confirm(form.dataset.sure)) event.preventDefault(); });
}
// Whoever has pressed a button sees that it is at work, and presses it once.
for (const form of document.forms) {
  form.addEventListener("submit", (event) => {
    setTimeout(() => {
      if (event.defaultPrevented) return;
      event.submitter?.setAttribute("aria-busy", "true");
      for (const button of form.querySelectorAll("button")) button.disabled = true;
    });
  });
}
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button[aria-busy]")) button.removeAttribute("aria-busy");
  for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;
});
// Another system offers other partitions.
for (const choice of document.querySelectorAll("select[data-reload]")) {
  choice.addEventListener("change", () => { location.search = new URLSearchParams({ system: choice.value }); });
}
addEventListener("online", renew);
document.addEventListener("visibilitychange", () => { if (!document.hidden) renew(); });
