// The page Files: rows as they are looked at, keys, and uploads that go on where a connection broke off.
(() => {
  const secret = document.currentScript.dataset.page, list = document.getElementById("files");
  if (!list) return;
  const { address, path, sort, order, filter } = list.dataset, api = `/api/v1/files/${address}`;
  const ask = (to, more = {}) => fetch(to, { cache: "no-store", ...more, headers: { "x-portreeve-page": secret, ...more.headers } });

  // Rows. Only those near the window are on the page: above and below them is as much empty room as the others would take.
  const WINDOW = 200, KEPT = 6;
  const table = list.querySelector("table"), body = table?.tBodies[0], total = Number(list.dataset.total);
  const size = (bytes) => {
    if (bytes === null) return "";
    if (bytes < 1000) return `${bytes} B`;
    let unit = "";
    for (unit of ["kB", "MB", "GB", "TB", "PB", "EB"]) { bytes /= 1000; if (bytes < 999.5) break; }
    return `${bytes < 9.95 ? bytes.toFixed(1) : bytes.toFixed(0)} ${unit}`;
  };
  const chosen = new Set();
  const make = (name, attributes, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  // The same characters as the worker's own rows leave out (`shown`): those that control, and those that turn the direction.
  const plain = (name) => name.replace(/[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu, "\ufffd");
  // A file may be dated later than a browser's calendar goes.
  const changed = (seconds) => {
    if (seconds === null) return "";
    const at = new Date(seconds * 1000);
    return isNaN(at) ? "?" : make("time", { datetime: at.toISOString() });
  };
  const row = (entry, number) => {
    const isDirectory = entry.kind === "directory", at = `/files/${address}${entry.segment}`, text = plain(entry.name);
    const box = make("input", { type: "checkbox", name: "n", value: entry.segment, "aria-label": `Choose ${text}` });
    box.checked = chosen.has(entry.segment);
    const name = make("td", { role: "cell", class: "name" }, make("a", { href: isDirectory ? `${at}/` : at }, isDirectory ? `${text}/` : text));
    if (entry.link) name.append(" ", make("span", { class: "hint" }, "link"));
    if (isDirectory) name.append(" ", make("a", { class: "about", href: `${at}?about`, "aria-label": `About ${text}` }, "…"));
    return make("tr", { role: "row", "aria-rowindex": number + 2 }, make("td", { role: "cell" }, box), name, make("td", { role: "cell" }, size(entry.size)),
      make("td", { role: "cell" }, changed(entry.modified)), make("td", { role: "cell" }, entry.access ?? ""));
  };
  // Those that came with the page are kept: to ask for the beginning of a list is to have the whole directory read anew.
  const MORE = 30, kept = body ? [...body.rows] : [], windows = new Map();
  const room = () => make("tr", { class: "room", "aria-hidden": "true" }, make("td", { colspan: 5 }));
  const [above, below] = [room(), room()];
  let height = 0, first = 0, end = kept.length, drawing = false, again = false, pause = 1000;
  const window_at = async (index) => {
    if (!windows.has(index)) {
      const query = new URLSearchParams({ sort, order, filter, offset: index * WINDOW, limit: WINDOW });
      const reply = await ask(`${api}?${query}`);
      if (!reply.ok) throw new Error("the portal does not answer");
      windows.set(index, (await reply.json()).entries);
      for (const old of [...windows.keys()].slice(0, -KEPT)) windows.delete(old);
    }
    return windows.get(index);
  };
  // The row that is gone to, once it is there.
  let wanted = null;
  const arrive = () => {
    const there = wanted && body.querySelector(`[aria-rowindex="${wanted.number + 2}"] ${wanted.to}`);
    if (!there) return false;
    wanted = null;
    there.focus();
    return true;
  };
  const number_of = (one) => Number(one.getAttribute("aria-rowindex")) - 2;
  const drawn = async () => {
    const top = Math.max(0, -body.getBoundingClientRect().top), at = Math.min(Math.floor(top / height), total - 1), see = Math.ceil(innerHeight / height);
    // Rows stay as they are for as long as enough of them are around what is looked at.
    const [least, most] = [MORE / 3, MORE].map((more) => [Math.max(0, at - more), Math.min(total, at + see + more)]);
    if (least[0] >= first && least[1] <= end) return;
    const entries = new Map();
    for (let index = Math.floor(most[0] / WINDOW); index * WINDOW < most[1]; index += 1) {
      if ((index + 1) * WINDOW > kept.length) (await window_at(index)).forEach((entry, number) => entries.set(index * WINDOW + number, entry));
    }
    [first, end] = most;
    // Those that are there already are not touched: whoever is at one of them stays there.
    const there = new Map();
    for (const one of [...body.rows].slice(1, -1)) {
      const number = number_of(one);
      if (number < first || number >= end) one.remove(); else there.set(number, one);
    }
    let last = above;
    for (let number = first; number < end; number += 1) {
      const one = there.get(number) ?? kept[number] ?? (entries.has(number) ? row(entries.get(number), number) : null);
      if (one && last.nextSibling !== one) last.after(one);
      last = one ?? last;
    }
    // The style sheet's policy admits no style in the text; a script may set one.
    above.firstChild.style.height = `${first * height}px`;
    below.firstChild.style.height = `${(total - end) * height}px`;
    local();
    arrive();
  };
  const draw = async () => {
    if (drawing) { again = true; return; }
    drawing = true;
    try {
      await drawn();
      pause = 1000;
    } catch {
      setTimeout(draw, pause);
      pause = Math.min(pause * 2, 15000);
    }
    drawing = false;
    if (again) { again = false; draw(); }
  };
  if (body) {
    if (total > kept.length && Number(list.dataset.offset) === 0) {
      document.getElementById("pages")?.remove();
      list.classList.add("long");
      height = body.rows[0].getBoundingClientRect().height;
      body.prepend(above);
      body.append(below);
      below.firstChild.style.height = `${(total - end) * height}px`;
      addEventListener("scroll", draw, { passive: true });
      addEventListener("resize", draw, { passive: true });
      draw();
    }
    const choice = list.parentElement.querySelector("[role=toolbar] output");
    const said_of = (number) => number.toLocaleString("en");
    // The box in the table's head stands for all that fit the filter, also where they are not drawn.
    const head = make("input", { type: "checkbox", "aria-label": "Choose all" });
    let asked = 0;
    const tell = (more = "") => {
      head.checked = chosen.size >= total;
      head.indeterminate = chosen.size > 0 && !head.checked;
      choice.value = chosen.size ? `${said_of(chosen.size)} chosen${more}` : "";
    };
    const choose = (box, is_chosen) => {
      box.checked = is_chosen;
      if (is_chosen) chosen.add(box.value); else chosen.delete(box.value);
      tell();
    };
    // A form takes a mebibyte, with what is in it beside names. Those behind the first ones are of the same reading of the directory.
    const MOST = 10000, FORM = 1024 * 1024 - 65536;
    const choose_all = async () => {
      const mine = (asked += 1), segments = Number(list.dataset.offset) === 0 ? kept.map((one) => one.querySelector("input").value) : [];
      if (segments.length < Math.min(total, MOST)) {
        const query = new URLSearchParams({ sort, order, filter, offset: segments.length, limit: MOST - segments.length });
        choice.value = "Looking for all of them.";
        const found = await ask(`${api}?${query}`).then(async (reply) => reply.ok && (await reply.json()).entries).catch(() => false);
        if (mine !== asked) return;
        if (!found) { tell(); choice.value = "The portal does not answer: try again."; return; }
        for (const { segment } of found) segments.push(segment);
      }
      const length = (segment) => new URLSearchParams({ n: segment }).toString().length + 1;
      let room = FORM - [...chosen].reduce((sum, segment) => sum + length(segment), 0), is_full = total > MOST;
      for (const segment of segments) {
        if (chosen.has(segment)) continue;
        if (chosen.size >= MOST || (room -= length(segment)) < 0) { is_full = true; break; }
        chosen.add(segment);
      }
      for (const one of new Set([...kept, ...body.querySelectorAll("tr[role]")])) {
        const box = one.querySelector("input");
        box.checked = chosen.has(box.value);
      }
      tell(is_full ? ` of ${said_of(total)}: no more fit into one form` : "");
    };
    head.addEventListener("change", () => {
      if (head.checked) { choose_all(); return; }
      asked += 1;
      chosen.clear();
      for (const one of new Set([...kept, ...body.querySelectorAll("tr[role]")])) one.querySelector("input").checked = false;
      tell();
    });
    table.tHead.rows[0].cells[0].replaceChildren(head);
    body.addEventListener("change", ({ target }) => choose(target, target.checked));
    // Browsers choose by themselves what was chosen when the page was left.
    addEventListener("pageshow", () => { for (const box of body.querySelectorAll("input:checked")) choose(box, true); });
    // What was chosen and scrolled away is chosen still.
    list.closest("form").addEventListener("formdata", ({ formData }) => {
      const boxes = [...kept, ...body.rows].flatMap((one) => one.querySelector("input:checked") ?? []);
      formData.delete("n");
      for (const segment of new Set([...chosen, ...boxes.map((box) => box.value)])) formData.append("n", segment);
    });
    // A row that is not drawn yet is gone to as soon as it is.
    const go = (number, to) => {
      wanted = { number, to };
      if (arrive()) return;
      const away = body.getBoundingClientRect().top + number * height;
      if (away < 0 || away > innerHeight - height) scrollBy(0, away - innerHeight / 2);
      draw();
    };
    document.addEventListener("focusin", () => { wanted = null; });
    body.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const at = event.target.closest("tr"), is_link = event.target.tagName === "A", box = at.querySelector("input");
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) {
        const number = (wanted?.number ?? number_of(at)) + step;
        if (number < 0 || number >= total || !(height || body.querySelector(`[aria-rowindex="${number + 2}"]`))) return;
        event.preventDefault();
        go(number, is_link ? ".name a" : "input");
      } else if (event.key === " " && is_link) {
        event.preventDefault();
        choose(box, !box.checked);
      } else if (event.key === "F2") {
        event.preventDefault();
        location.href = (at.querySelector(".about") ?? at.querySelector(".name a")).href;
      } else if (event.key === "Delete") {
        event.preventDefault();
        choose(box, true);
        list.closest("form").querySelector("button[value=delete]").click();
      }
    });
  }

  // Uploads: one after the other, each in parts.
  const box = document.getElementById("upload");
  // A folder whose path is no plain text takes none: uploads are begun by a path.
  if (!box) return;
  const PART = 16 * 1024 * 1024, uploads = document.getElementById("uploads"), said = box.querySelector("output");
  const waiting = [], folders = new Set(), count = { all: 0, there: 0, failed: 0, left: 0 };
  let busy = false;

  // What a screen reader says: of many changes within a second the last one.
  const RESULT = "portreeve-uploaded";
  let news = null, speaking = false;
  const speak = (text) => {
    news = text;
    if (speaking) return;
    speaking = true;
    said.value = news;
    news = null;
    setTimeout(() => { speaking = false; if (news !== null) speak(news); }, 1000);
  };
  const summary = () => `${count.there} of ${count.all} ${count.there === 1 ? "is" : "are"} there${count.failed ? `, ${count.failed} failed` : ""}.`;

  // One request; `status` 0 is none that was answered.
  const once = (stop, method, to, body, progress) => new Promise((end) => {
    const request = new XMLHttpRequest();
    request.open(method, to);
    request.setRequestHeader("x-portreeve-page", secret);
    if (typeof body === "string") request.setRequestHeader("content-type", "application/json");
    if (progress) request.upload.onprogress = ({ loaded }) => progress(loaded);
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText) ?? {}; } catch { /* it is none of the portal's, or has no body */ }
      end({ status: request.status, answer, after: Number(request.getResponseHeader("retry-after")) || 0 });
    };
    request.onerror = request.onabort = () => end({ status: 0, answer: {}, after: 0 });
    stop.end = () => request.abort();
    request.send(body);
  });
  const why = ({ status, answer }) => answer.detail || answer.title || (status >= 400 && status < 500 ? "It was refused." : "The portal does not answer.");
  const pauses = (left) => ({ next: 1000, left });
  // Whether it is asked again, which is after a pause. A connection that is away comes back, and so does a portal. What the worker
  // says of the file itself is asked `left` times more: it may be the last word, or not.
  const goes_on = async (one, reply, pause) => {
    const { status, answer } = reply;
    const is_said = status === 409 || ["not-done", "failed"].includes(answer.error);
    const passes = status === 0 || status === 408 || status === 429 || (is_said ? (pause.left -= 1) >= 0 : status >= 500 && status !== 507);
    if (one.stop.wanted || !passes) return false;
    one.say(status === 0 ? "The connection broke off. It goes on by itself." : `${why(reply)} It is tried again.`);
    await new Promise((done) => {
      const timer = setTimeout(end, Math.max(pause.next, Math.min(reply.after, 60) * 1000));
      function end() { clearTimeout(timer); removeEventListener("online", end); done(); }
      if (status === 0) addEventListener("online", end);
      one.stop.end = end;
    });
    pause.next = Math.min(pause.next * 2, 15000);
    return !one.stop.wanted;
  };
  const asked = async (one, method, to, value) => {
    for (const pause = pauses(2); ;) {
      const reply = await once(one.stop, method, to, value && JSON.stringify(value));
      if (reply.status && reply.status < 400) one.say("");
      else if (await goes_on(one, reply, pause)) continue;
      return reply;
    }
  };
  const refused = (one, reply, of = "") => one.stop.wanted ? one.end("left", "Given up.") : one.end("failed", of + why(reply));
  const is_there = async (one, folder) => {
    if (folders.has(folder)) return true;
    const at = `${api}${folder.split("/").map(encodeURIComponent).join("/")}/`;
    let reply = await asked(one, "PUT", at);
    // There is something of that name already: a folder will do.
    if (reply.status === 412) reply = await asked(one, "GET", `${at}?limit=1`);
    if (reply.status < 200 || reply.status > 299) { refused(one, reply, one.file ? `${plain(folder)}: ` : ""); return false; }
    folders.add(folder);
    return true;
  };
  const send = async (one) => {
    const { file, name, stop, bar } = one, steps = name.split("/"), base = path === "/" ? "" : path;
    for (let depth = 1; depth <= steps.length - (file ? 1 : 0); depth += 1) {
      if (!await is_there(one, steps.slice(0, depth).join("/"))) return;
    }
    if (!file) { one.end("there", "It is there."); return; }
    const begin = (replace) => asked(one, "POST", "/api/v1/uploads", { path: `${base}/${name}`, size: file.size, replace });
    let begun = await begin(false);
    if (begun.status === 412) {
      if (!confirm(`There is ${name} already. Replace it?`)) { one.end("left", "It was left as it is."); return; }
      begun = await begin(true);
    }
    let { id, offset } = begun.answer;
    if (begun.status !== 201 || !Number.isInteger(offset)) { refused(one, begun); return; }
    const at = `/api/v1/uploads/${id}`;
    for (let pause = pauses(Infinity); ;) {
      const from = offset;
      const reply = stop.wanted ? { status: 0, answer: {} } : await once(stop, "PUT", `${at}?offset=${from}`, file.slice(from, from + PART), (loaded) => { bar.value = from + loaded; });
      if (reply.status === 201) { one.end("there", "It is there."); return; }
      if (reply.status === 200 && Number.isInteger(reply.answer.offset)) {
        offset = reply.answer.offset;
        pause = pauses(Infinity);
        one.say("");
        continue;
      }
      // Nothing goes out of a file that was changed or removed, too.
      const lost = reply.status === 0 && !stop.wanted && !await file.slice(from, from + 1).arrayBuffer().catch(() => null);
      if (lost || !await goes_on(one, reply, pause)) {
        if (lost || stop.wanted) await once({}, "DELETE", at);
        if (lost) one.end("failed", "It was changed or removed on this machine, and can't be read.");
        else refused(one, reply);
        return;
      }
      // How much is there? All of it, where the answer to the last part was lost: then one more that is empty tells how it ended.
      const state = await once(stop, "GET", at);
      if (state.status === 200 && Number.isInteger(state.answer.offset)) offset = state.answer.offset;
      else if (state.status === 404) { refused(one, reply.answer.detail ? reply : state); return; }
    }
  };
  const next = async () => {
    if (busy) return;
    busy = true;
    for (let one; (one = waiting.shift());) {
      if (one.stop.wanted) one.end("left", "Given up.");
      else await send(one).catch(() => one.end("failed", "It could not be sent."));
    }
    busy = false;
    if (!count.there) return;
    if (!count.failed) {
      try { sessionStorage.setItem(RESULT, summary()); } catch { /* then it is not said */ }
      location.reload();
    } else if (!box.querySelector("button")) {
      // What was said of those that failed stays until it was read.
      const anew = make("button", { type: "button", class: "quiet" }, "Show the list anew");
      anew.onclick = () => location.reload();
      box.append(anew);
    }
  };
  // Each is a file with its name, a folder that is empty, or what could not be read.
  const take = (found) => {
    uploads.hidden &&= !found.length;
    for (const { file, name, unread } of found) {
      const text = plain(name) + (file || unread ? "" : "/"), bar = make("progress", { value: 0, max: file?.size || 1, "aria-label": `Uploaded of ${text}` });
      const up = make("button", { type: "button", class: "quiet", "aria-label": `Give up ${text}` }, "Give up");
      // The whole list would be read out otherwise: what is new is said in one place.
      const told = make("output", { "aria-live": "off" }), stop = { end: () => {}, wanted: false };
      const one = {
        file, name, bar, stop,
        say: (what) => {
          if (told.value === what) return;
          told.value = what;
          if (what) speak(`${text}: ${what} ${summary()}`);
        },
        end: (how, what) => {
          count[how] += 1;
          if (how === "there") bar.value = bar.max;
          if (how === "failed") told.className = "bad";
          up.remove();
          one.say(what);
        },
      };
      up.onclick = () => { stop.wanted = true; stop.end(); };
      count.all += 1;
      uploads.append(make("li", {}, `${text} `, bar, " ", up, " ", told));
      if (unread) one.end("failed", "It can't be read."); else waiting.push(one);
    }
    next();
  };
  box.hidden = false;
  try {
    const result = sessionStorage.getItem(RESULT);
    sessionStorage.removeItem(RESULT);
    if (result) setTimeout(() => speak(result));
  } catch { /* nothing is kept here */ }
  for (const input of box.querySelectorAll("input")) {
    input.addEventListener("change", () => {
      take([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name })));
      input.value = "";
    });
  }
  const walk = async (entry, above, found) => {
    const name = above + entry.name;
    try {
      if (entry.isFile) { found.push({ file: await new Promise((is, not) => entry.file(is, not)), name }); return; }
      const reader = entry.createReader(), inside = [];
      for (let some; (some = await new Promise((is, not) => reader.readEntries(is, not))).length;) inside.push(...some);
      if (!inside.length) found.push({ name });
      for (const one of inside) await walk(one, `${name}/`, found);
    } catch {
      found.push({ name, unread: true });
    }
  };
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("drop");
  });
  addEventListener("dragleave", ({ relatedTarget }) => { if (!relatedTarget) document.body.classList.remove("drop"); });
  addEventListener("drop", async (event) => {
    document.body.classList.remove("drop");
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    // After the first wait they are not to be had any more.
    const found = [], items = [...event.dataTransfer.items].filter((item) => item.kind === "file").map((item) => [item.webkitGetAsEntry(), item.getAsFile()]);
    for (const [entry, file] of items) {
      if (entry) await walk(entry, "", found);
      else if (file) found.push({ file, name: file.name });
    }
    take(found);
  });
  addEventListener("beforeunload", (event) => { if (busy) event.preventDefault(); });
})();
