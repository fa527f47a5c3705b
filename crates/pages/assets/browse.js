// The page Files: rows as they are looked at, keys, and uploads that go on where a connection broke off.
(() => {
  const secret = document.currentScript.dataset.page, list = document.getElementById("files");
  if (!list) return;
  const { address, path, sort, order, filter } = list.dataset, api = `/api/v1/files/${address}`;
  const ask = (to, more = {}) => fetch(to, { cache: "no-store", ...more, headers: { "x-portreeve-page": secret, ...more.headers } });
  const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
  const detail = async (reply) => { try { return (await reply.json()).detail || "It was refused."; } catch { return "The portal does not answer."; } };

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
  const chosen = new Map();
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
  const windows = new Map();
  let height = 0, first = 0, shown = 0, drawing = false, again = false;
  const window_at = async (index) => {
    if (!windows.has(index)) {
      const query = new URLSearchParams({ sort, order, filter, offset: index * WINDOW, limit: WINDOW });
      const reply = await ask(`${api}?${query}`);
      if (!reply.ok) return [];
      windows.set(index, (await reply.json()).entries);
      for (const old of [...windows.keys()].slice(0, -KEPT)) windows.delete(old);
    }
    return windows.get(index) ?? [];
  };
  const room = () => make("tr", { class: "room", "aria-hidden": "true" }, make("td", { colspan: 5 }));
  const drawn = async () => {
    const top = Math.max(0, -body.getBoundingClientRect().top), see = Math.ceil(innerHeight / height) + 60;
    const begin = Math.max(0, Math.min(Math.floor(top / height) - 30, total - see)), end = Math.min(total, begin + see);
    if (begin !== first || end !== first + shown) {
      const entries = [];
      for (let index = Math.floor(begin / WINDOW); index * WINDOW < end; index += 1) entries.push(...await window_at(index));
      const skip = begin - Math.floor(begin / WINDOW) * WINDOW;
      const rows = entries.slice(skip, skip + end - begin).map((entry, number) => row(entry, begin + number));
      const focused = document.activeElement?.closest?.("tr")?.getAttribute("aria-rowindex"), kind = document.activeElement?.tagName;
      const [above, below] = [room(), room()];
      body.replaceChildren(above, ...rows, below);
      // The style sheet's policy admits no style in the text; a script may set one.
      above.firstChild.style.height = `${begin * height}px`;
      below.firstChild.style.height = `${(total - end) * height}px`;
      first = begin;
      shown = end - begin;
      local();
      if (focused) body.querySelector(`[aria-rowindex="${focused}"] ${kind === "INPUT" ? "input" : "a"}`)?.focus({ preventScroll: true });
    }
  };
  const draw = async () => {
    if (drawing) { again = true; return; }
    drawing = true;
    try { await drawn(); } finally { drawing = false; }
    if (again) { again = false; draw(); }
  };
  if (body) {
    shown = body.rows.length;
    if (total > shown && Number(list.dataset.offset) === 0) {
      document.getElementById("pages")?.remove();
      list.classList.add("long");
      height = body.rows[0].getBoundingClientRect().height;
      addEventListener("scroll", draw, { passive: true });
      addEventListener("resize", draw, { passive: true });
      draw();
    }
    body.addEventListener("change", ({ target }) => {
      if (target.checked) chosen.set(target.value, true); else chosen.delete(target.value);
    });
    // What was chosen and scrolled away is chosen still.
    list.closest("form").addEventListener("formdata", ({ formData }) => {
      formData.delete("n");
      for (const segment of new Set([...chosen.keys(), ...[...body.querySelectorAll("input:checked")].map((box) => box.value)])) formData.append("n", segment);
    });
    body.addEventListener("keydown", (event) => {
      const at = event.target.closest("tr"), is_link = event.target.tagName === "A";
      const next = { ArrowDown: at?.nextElementSibling, ArrowUp: at?.previousElementSibling }[event.key];
      if (next && !next.classList.contains("room")) {
        event.preventDefault();
        next.querySelector(is_link ? ".name a" : "input")?.focus();
      } else if (event.key === "Delete" || event.key === "F2") {
        event.preventDefault();
        if (event.key === "F2") { location.href = at.querySelector(".about, .name a").href; return; }
        at.querySelector("input").checked = true;
        list.closest("form").querySelector("button[value=delete]").click();
      }
    });
  }

  // Uploads: one after the other, each in parts.
  const PART = 16 * 1024 * 1024, uploads = document.getElementById("uploads"), waiting = [];
  let busy = false, done = 0;
  const put = (to, part, progress, stop) => new Promise((end) => {
    const request = new XMLHttpRequest();
    request.open("PUT", to);
    request.setRequestHeader("x-portreeve-page", secret);
    request.upload.onprogress = ({ loaded }) => progress(loaded);
    request.onload = () => end({ status: request.status, text: request.responseText });
    request.onerror = request.onabort = () => end({ status: 0, text: "" });
    stop.end = () => request.abort();
    request.send(part);
  });
  const json = (to, value) => ask(to, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value) });
  const send = async ({ file, name, line, made }) => {
    const said = line.querySelector("output"), bar = line.querySelector("progress"), stop = { end: () => {}, wanted: false };
    line.querySelector("button").onclick = () => { stop.wanted = true; stop.end(); };
    bar.max = file.size || 1;
    const base = path === "/" ? "" : path;
    for (const folder of made) await ask(`${api}${folder.split("/").map(encodeURIComponent).join("/")}/`, { method: "PUT" });
    let begun = await json("/api/v1/uploads", { path: `${base}/${name}`, size: file.size });
    if (begun.status === 412 && confirm(`There is ${name} already. Replace it?`)) begun = await json("/api/v1/uploads", { path: `${base}/${name}`, size: file.size, replace: true });
    if (!begun.ok) { said.textContent = begun.status === 412 ? "It was left as it is." : await detail(begun); return false; }
    let { id, offset } = await begun.json();
    const at = `/api/v1/uploads/${id}`;
    for (let pause = 1000; ;) {
      if (stop.wanted) { await ask(at, { method: "DELETE" }).catch(() => {}); said.textContent = "Given up."; return false; }
      const begin = offset;
      const { status, text } = await put(`${at}?offset=${offset}`, file.slice(offset, offset + PART), (loaded) => { bar.value = begin + loaded; }, stop);
      if (status === 201) { bar.value = bar.max; said.textContent = "It is there."; return true; }
      if (status === 200) { ({ offset } = JSON.parse(text)); pause = 1000; said.textContent = ""; continue; }
      if (stop.wanted) continue;
      if (status && status < 500 && status !== 409 && status !== 408) {
        try { said.textContent = JSON.parse(text).detail; } catch { said.textContent = "It was refused."; }
        return false;
      }
      // The connection broke off, or a part is still on its way: how much is there?
      said.textContent = "The connection broke off. It goes on by itself.";
      await wait(pause);
      pause = Math.min(pause * 2, 15000);
      const reply = await ask(at).catch(() => null);
      if (reply?.ok) ({ offset } = await reply.json());
      else if (reply?.status === 404) { said.textContent = await detail(reply); return false; }
    }
  };
  const next = async () => {
    if (busy) return;
    busy = true;
    for (let one; (one = waiting.shift());) {
      try { if (await send(one)) done += 1; } catch { one.line.querySelector("output").textContent = "The portal does not answer."; }
      one.line.querySelector("button").remove();
    }
    busy = false;
    if (done) location.reload();
  };
  const take = (files) => {
    const folders = new Set();
    uploads.hidden = !files.length && uploads.hidden;
    for (const { file, name } of files) {
      const above = name.split("/").slice(0, -1), made = [];
      above.forEach((_, depth) => {
        const folder = above.slice(0, depth + 1).join("/");
        if (!folders.has(folder)) { folders.add(folder); made.push(folder); }
      });
      const line = make("li", {}, `${name} `, make("progress", { value: 0, "aria-label": `Uploaded of ${name}` }), " ", make("button", { type: "button", class: "quiet" }, "Give up"), " ", make("output", {}));
      uploads.append(line);
      waiting.push({ file, name, line, made });
    }
    next();
  };
  // A folder whose path is no plain text takes none: uploads are begun by a path.
  const box = document.getElementById("upload");
  if (!box) return;
  box.hidden = false;
  for (const input of box.querySelectorAll("input")) {
    input.addEventListener("change", () => {
      take([...input.files].map((file) => ({ file, name: file.webkitRelativePath || file.name })));
      input.value = "";
    });
  }
  const walk = async (entry, above, found) => {
    if (entry.isFile) {
      found.push({ file: await new Promise((is, not) => entry.file(is, not)), name: above + entry.name });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const entries = await new Promise((is, not) => reader.readEntries(is, not));
      if (!entries.length) return;
      for (const one of entries) await walk(one, `${above}${entry.name}/`, found);
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
    const found = [], entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    for (const entry of entries) await walk(entry, "", found);
    take(found);
  });
  addEventListener("beforeunload", (event) => { if (busy) event.preventDefault(); });
})();
