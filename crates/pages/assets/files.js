// Fields that name files: suggests what there is, and takes up a file of the visitor's machine. Paths begin at the home directory.
(() => {
  const secret = document.currentScript.dataset.page, home = document.currentScript.dataset.home;
  const headers = { "x-portreeve-page": secret };
  const whole = (path) => (path.startsWith("/") ? path : `${home}/${path.replace(/^~(\/|$)/, "")}`);
  const address = (path) => "/api/v1/files" + path.split("/").map(encodeURIComponent).join("/");
  const plain = (path) => path.split("/").reduce((names, name) => {
    if (name === "..") names.pop(); else if (name && name !== ".") names.push(name);
    return names;
  }, []).join("/");

  const suggest = async (field) => {
    const typed = field.value, dir = typed.slice(0, typed.lastIndexOf("/") + 1);
    if (field.dataset.shown === dir) return;
    field.dataset.shown = dir;
    const place = `/${plain(whole(dir))}/`.replace("//", "/");
    try {
      const reply = await fetch(address(place), { cache: "no-store", headers });
      const { entries } = reply.ok ? await reply.json() : { entries: [] };
      if (field.dataset.shown !== dir) return;
      const fits = entries.filter(({ name, kind }) => (kind === "directory" || field.dataset.file === kind) && !name.startsWith("."));
      field.list.replaceChildren(...fits.slice(0, 500).map(({ name, kind }) => {
        const option = document.createElement("option");
        option.value = dir + name + (kind === "directory" ? "/" : "");
        return option;
      }));
    } catch { delete field.dataset.shown; }
  };
  for (const field of document.querySelectorAll("input[data-file]")) {
    for (const event of ["focus", "input"]) field.addEventListener(event, () => suggest(field));
  }

  // fetch says nothing of how far it is.
  const put = (path, file, only, said, box) => new Promise((done) => {
    const request = new XMLHttpRequest(), bar = box.querySelector("progress"), stop = box.querySelector("button");
    const end = (status, text) => { bar.hidden = stop.hidden = true; stop.onclick = null; done({ status, text }); };
    request.open("PUT", address(path));
    request.setRequestHeader("x-portreeve-page", secret);
    if (only) request.setRequestHeader("if-none-match", "*");
    request.upload.onprogress = ({ loaded, total }) => { bar.max = total || 1; bar.value = loaded; };
    request.onload = () => end(request.status, request.responseText);
    request.onerror = () => end(0, "");
    request.onabort = () => end(-1, "");
    stop.onclick = () => request.abort();
    bar.value = 0;
    bar.hidden = stop.hidden = false;
    said.textContent = `Uploading ${file.name} …`;
    request.send(file);
  });
  const upload = async (box, choice, field) => {
    const [file] = choice.files, said = box.querySelector("output");
    if (!file) return;
    const directory = document.querySelector("[name='f.directory']")?.value ?? "";
    const path = `/${plain(whole(directory))}/${file.name}`.replace("//", "/");
    let { status, text } = await put(path, file, true, said, box);
    if (status === 412 && confirm(`There is ${path} already. Replace it?`)) ({ status, text } = await put(path, file, false, said, box));
    choice.value = "";
    let detail = "The portal does not answer.";
    try { detail = JSON.parse(text).detail || detail; } catch { /* no words */ }
    if (status === 201 || status === 204) {
      field.value = path;
      said.textContent = `It is ${path} now.`;
    } else {
      said.textContent = status === 412 ? "It was left as it is." : status === -1 ? "Nothing was uploaded." : `${file.name} was not uploaded. ${detail}`;
    }
  };
  for (const box of document.querySelectorAll("[data-upload]")) {
    const choice = box.querySelector("input"), field = document.getElementsByName(box.dataset.upload)[0];
    box.hidden = false;
    choice.addEventListener("change", () => upload(box, choice, field));
  }
})();
