'use strict';

/* The panel of files: what a directory holds, what is fetched from it, and what is sent to it.

   `at` is a path as the server wrote it for addresses; everything shown is text, whatever a name holds. */
class Files {
  static WHY = { asked: '', program: 'The program is here. ', began: 'The terminal began here. ' };

  constructor(on) {
    this.on = on;
    this.allowed = false;
    this.listing = null;
    this.waiting = [];
    this.sending = null;
    this.asked = 0;
    const id = name => document.getElementById(name);
    this.panel = id('files');
    this.path = id('path');
    this.why = id('why');
    this.entries = id('entries');
    this.sent = id('sent');
    this.dots = id('dots');
    id('go').addEventListener('submit', event => {
      event.preventDefault();
      this.#go();
    });
    id('up').addEventListener('click', () => this.listing?.parent_at && this.#list(this.listing.parent_at));
    id('there').addEventListener('click', () => this.#list());
    id('close-files').addEventListener('click', () => this.show(false));
    id('choose').addEventListener('click', () => id('chosen').click());
    id('chosen').addEventListener('change', event => {
      this.#send([...event.target.files]);
      event.target.value = '';
    });
    this.dots.addEventListener('change', () => this.#draw());
    this.panel.addEventListener('keydown', event => event.key === 'Escape' && this.show(false));
    this.#takeDrops();
    addEventListener('beforeunload', event => (this.sending || this.waiting.length > 0) && event.preventDefault());
  }

  get shown() {
    return !this.panel.hidden;
  }

  show(open) {
    this.panel.hidden = !open;
    this.on(open);
    if (!open) return;
    this.path.focus();
    this.#list();
  }

  allow(may) {
    this.allowed = may;
    for (const control of this.panel.querySelectorAll('button, input')) {
      if (!control.closest('#sent') && control.id !== 'close-files') control.disabled = !may;
    }
  }

  /* Also what is dropped on the terminal is meant for the program's directory. */
  #takeDrops() {
    const files = event => this.allowed && event.dataTransfer?.types.includes('Files');
    addEventListener('dragover', event => {
      if (!files(event)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = 'copy';
      this.panel.classList.add('over');
    });
    addEventListener('dragleave', event => event.relatedTarget === null && this.panel.classList.remove('over'));
    addEventListener('drop', async event => {
      this.panel.classList.remove('over');
      if (!files(event)) return;
      event.preventDefault();
      // A directory looks like a file, until it is read.
      const items = [...event.dataTransfer.items].filter(item => item.kind === 'file');
      const [dropped, directories] = [[], []];
      for (const item of items) {
        const entry = item.webkitGetAsEntry?.();
        if (entry?.isDirectory) directories.push(entry.name);
        else if (item.getAsFile()) dropped.push(item.getAsFile());
      }
      if (!this.shown) {
        this.panel.hidden = false;
        this.on(true);
        await this.#list();
      }
      for (const name of directories) this.#row(name).say('A directory: pack it into one file first.', { wrong: true });
      this.#send(dropped);
    });
  }

  async #ask(address) {
    let answer;
    try {
      answer = await fetch(address, { cache: 'no-store', redirect: 'error' });
    } catch {
      throw new Error('The terminal does not answer.');
    }
    if (!answer.ok) throw Object.assign(new Error(Files.#said(answer.status, await answer.text(), answer.headers.get('content-type'))), { status: answer.status });
    return answer.json();
  }

  /* The terminal's own refusals are sentences. Whatever stands between has pages. */
  static #said(status, text, type) {
    return type?.startsWith('text/plain') && text.length < 500 ? text.trim() : `It was refused (${status}).`;
  }

  /* Lists a directory; without one, that of the program. Says whether it did. */
  async #list(at) {
    const turn = ++this.asked;
    try {
      const listing = await this.#ask(at === undefined ? 'files' : `files?path=${at}`);
      if (turn !== this.asked) return false;
      // The same one again is there for the same reason.
      if (listing.why === 'asked' && listing.at === this.listing?.at) listing.why = this.listing.why;
      this.listing = listing;
      this.path.value = this.#short;
      this.path.scrollLeft = this.path.scrollWidth;
      this.#explain((Files.WHY[listing.why] ?? '') + (listing.outside ? 'Outside of your home.' : ''));
      this.#draw();
      return true;
    } catch (error) {
      if (turn === this.asked) this.#explain(error.message, true);
      return error.status === 409 ? at : false;
    }
  }

  /* The path, from home on if it lies there. */
  get #short() {
    const { path, home } = this.listing ?? { path: '', home: '' };
    return path === home || path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
  }

  #explain(text, wrong = false) {
    this.why.textContent = text;
    this.why.classList.toggle('wrong', wrong);
  }

  /* What was written may be a directory or a file. */
  async #go() {
    const listed = await this.#list(encodeURIComponent(this.path.value.toWellFormed()));
    if (typeof listed !== 'string') return;
    this.#explain('');
    const link = document.createElement('a');
    link.href = `file?path=${listed}`;
    link.download = '';
    link.click();
  }

  #draw() {
    const { entries, more } = this.listing ?? { entries: [] };
    const shown = entries.filter(entry => this.dots.checked || !entry.name.startsWith('.'));
    const rows = shown.map(entry => this.#entry(entry));
    if (rows.length === 0) rows.push(Files.#made('span', 'entry', entries.length > 0 ? 'Only hidden files.' : 'Nothing is here.'));
    if (more) rows.push(Files.#made('span', 'entry', 'There are more than fit here: write the path of a file to fetch it.'));
    this.entries.replaceChildren(...rows.map(row => {
      const line = document.createElement('li');
      line.append(row);
      return line;
    }));
  }

  #entry({ name, at, is, size, modified }) {
    const row = Files.#made(is === 'directory' ? 'button' : is === 'file' ? 'a' : 'span', 'entry');
    row.append(Files.#made('span', 'name', is === 'directory' ? `${name}/` : name), Files.#made('span', 'size', Files.#size(size)));
    row.title = modified === null ? name : `${name}\n${new Date(modified * 1000).toLocaleString()}`;
    if (is === 'directory') {
      row.type = 'button';
      row.addEventListener('click', () => this.#list(at));
    } else if (is === 'file') {
      row.href = `file?path=${at}`;
      row.download = name;
    }
    return row;
  }

  static #made(kind, name, text = '') {
    const made = document.createElement(kind);
    made.className = name;
    made.textContent = text;
    return made;
  }

  static #size(bytes) {
    if (bytes === null || bytes === undefined) return '';
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let [value, unit] = [bytes, 0];
    while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
    return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
  }

  /* Into the directory that the path names now, one after the other. */
  async #send(files) {
    if (files.length === 0) return;
    if (!this.listing || this.path.value !== this.#short) {
      if (await this.#list(encodeURIComponent(this.path.value.toWellFormed())) !== true) return;
    }
    const [at, path] = [this.listing.at, this.#short];
    for (const file of files) {
      const name = file.name.toWellFormed();
      const row = this.#row(name);
      this.waiting.push({ file, row, path, name, directory: at, at: `${at === '/' ? '' : at}/${encodeURIComponent(name)}` });
      row.say('waits');
      row.offer({ Cancel: () => this.#dropped(row) });
    }
    this.#next();
  }

  #dropped(row) {
    this.waiting = this.waiting.filter(upload => upload.row !== row);
    row.say('Not sent.');
  }

  #next() {
    if (this.sending || this.waiting.length === 0) return;
    this.sending = this.waiting.shift();
    this.#put(this.sending);
  }

  #put({ file, row, path, name, directory, at, etag }) {
    const request = new XMLHttpRequest();
    const again = more => {
      row.say('waits');
      this.waiting.unshift({ file, row, path, name, directory, at, ...more });
      this.#next();
    };
    const over = (text, wrong, offers) => {
      this.sending = null;
      row.say(text, { wrong });
      row.offer(offers ?? {});
      this.#next();
    };
    request.open('PUT', `file?path=${at}`);
    request.setRequestHeader(etag ? 'if-match' : 'if-none-match', etag ?? '*');
    request.setRequestHeader('content-type', 'application/octet-stream');
    request.upload.onprogress = ({ loaded, total }) => row.progress(loaded, total);
    request.onload = async () => {
      if (request.status === 201 || request.status === 204) {
        over(`Stored in ${path}`);
        if (this.listing?.at === directory) await this.#list(directory);
        return;
      }
      const said = Files.#said(request.status, request.responseText, request.getResponseHeader('content-type'));
      if (request.status !== 412) return over(said, true, { 'Try again': () => again({}) });
      // Exactly what is there now is replaced, if that is wanted.
      const now = await this.#ask(`files?path=${directory}`).catch(() => null);
      const there = now?.entries.find(entry => entry.at === at || entry.name === name);
      over(`It is in ${path} already${there?.etag ? `, with ${Files.#size(there.size)}` : ''}.`, true, {
        ...(there?.etag ? { Replace: () => again({ etag: there.etag }) } : {}),
        Skip: () => row.say('Not sent.'),
      });
    };
    request.onerror = () => over('The connection broke. Nothing was stored.', true, { 'Try again': () => again({}) });
    request.onabort = () => over('Cancelled. Nothing was stored.', false, { 'Try again': () => again({}) });
    row.say('');
    row.progress(0, file.size);
    row.offer({ Cancel: () => request.abort() });
    request.send(file);
  }

  /* A line for one file that is sent. */
  #row(name) {
    const line = document.createElement('li');
    const label = Files.#made('span', 'name', name);
    const buttons = Files.#made('span', 'row');
    const bar = document.createElement('progress');
    const said = Files.#made('span', 'said');
    said.setAttribute('role', 'status');
    label.title = name;
    bar.setAttribute('aria-label', name);
    bar.hidden = true;
    line.append(label, buttons, bar, said);
    this.sent.prepend(line);
    const row = {
      say: (text, { wrong = false } = {}) => {
        bar.hidden = true;
        said.textContent = text;
        said.classList.toggle('wrong', wrong);
        row.offer({});
      },
      progress: (loaded, total) => {
        bar.hidden = false;
        bar.max = total || 1;
        bar.value = loaded;
        said.textContent = `${Files.#size(loaded)} of ${Files.#size(total)}`;
      },
      offer: acts => {
        if (Object.keys(acts).length === 0) acts = { Hide: () => line.remove() };
        buttons.replaceChildren(...Object.entries(acts).map(([text, act]) => {
          const button = Files.#made('button', '', text);
          button.type = 'button';
          button.addEventListener('click', act);
          return button;
        }));
      },
    };
    return row;
  }
}
