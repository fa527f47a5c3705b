'use strict';

/* The connection to the server. It comes again by itself for as long as the page lives, and goes on where it was.

   `on` has: where() -> {cols, rows}, state(name, text), message(json), output(offset, bytes, shown), dead(). */
class Link {
  // The server says something every 10 seconds.
  static SILENCE = 25_000;
  static OPENING = 15_000;
  static FIRST_PAUSE = 300;
  static LONGEST_PAUSE = 5_000;
  static TYPED = 32 * 1024;

  constructor(on) {
    this.on = on;
    this.client = Link.#name();
    this.run = '';
    this.offset = 0;
    this.picture = 0;
    this.socket = null;
    this.pause = Link.FIRST_PAUSE;
    this.failures = 0;
    this.reason = '';
    this.trouble = '';
    this.ended = false;
    this.timer = 0;
    addEventListener('online', () => this.#hurry());
    document.addEventListener('visibilitychange', () => document.hidden || this.#hurry());
    setInterval(() => this.#listen(), 5_000);
    this.#connect();
  }

  say(message) {
    if (this.open) this.socket.send(JSON.stringify(message));
  }

  /* What was typed, in pieces that the server takes. Says whether it was sent. */
  type(bytes) {
    if (!this.open) return false;
    for (let at = 0; at < bytes.length; at += Link.TYPED) this.socket.send(bytes.subarray(at, at + Link.TYPED));
    return true;
  }

  get open() {
    return this.socket !== null && this.socket.readyState === WebSocket.OPEN;
  }

  /* The same when the page is loaded again, so that whoever typed goes on typing. */
  static #name() {
    const made = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), byte => byte.toString(16).padStart(2, '0')).join('');
    const key = `portreeve-terminal ${location.pathname}`;
    try {
      const name = sessionStorage.getItem(key) || made();
      sessionStorage.setItem(key, name);
      return name;
    } catch {
      return made();
    }
  }

  #connect() {
    clearTimeout(this.timer);
    const address = new URL('ws', document.baseURI);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    address.search = '';
    address.hash = '';
    const socket = new WebSocket(address);
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    this.heard = performance.now();
    this.greeted = false;
    // A picture of which only a part came is none.
    if (this.picture > 0) this.run = '';
    this.picture = 0;
    socket.onopen = () => {
      this.heard = performance.now();
      const { cols, rows } = this.on.where();
      this.say({ type: 'attach', run: this.run, offset: this.offset, client: this.client, cols, rows });
    };
    socket.onmessage = event => {
      if (socket !== this.socket) return;
      this.heard = performance.now();
      if (typeof event.data === 'string') this.#hear(JSON.parse(event.data));
      else this.#take(socket, event.data);
    };
    socket.onclose = () => socket === this.socket && this.#again();
  }

  #hear(message) {
    switch (message.type) {
      case 'hello':
        this.greeted = true;
        this.run = message.run;
        this.pause = Link.FIRST_PAUSE;
        this.failures = 0;
        this.reason = '';
        this.on.state('connected', 'connected');
        this.on.message({ ...message, offset: this.offset });
        return;
      case 'snapshot':
        this.offset = message.offset;
        this.picture = message.bytes;
        break;
      case 'exited':
        this.ended = true;
        break;
      case 'error':
        this.reason = message.message;
        break;
    }
    this.on.message(message);
  }

  #take(socket, frame) {
    const offset = Number(new DataView(frame).getBigUint64(0));
    const bytes = new Uint8Array(frame, 8);
    // Only the connection that brought them is told that they are shown.
    const shown = () => {
      if (socket === this.socket) this.say({ type: 'ack', bytes: bytes.length });
    };
    if (this.picture > 0) {
      this.picture -= bytes.length;
    } else {
      this.offset = offset + bytes.length;
    }
    this.on.output(offset, bytes, shown);
  }

  #again() {
    this.socket = null;
    this.on.dead();
    if (this.ended) return;
    if (!this.greeted && ++this.failures % 3 === 2) this.#ask();
    if (this.failures < 2) this.trouble = '';
    this.on.state(this.trouble ? 'refused' : 'reconnecting', this.reason || this.trouble || 'reconnecting…');
    this.timer = setTimeout(() => this.#connect(), this.pause);
    this.pause = Math.min(this.pause * 2, Link.LONGEST_PAUSE);
  }

  /* A WebSocket does not say why it was refused. */
  async #ask() {
    try {
      const answer = await fetch('./', { method: 'HEAD', cache: 'no-store', redirect: 'manual' });
      const refused = answer.type === 'opaqueredirect' || answer.status === 401 || answer.status === 403;
      if (refused) this.trouble = 'no access any more: open it from the workspace again';
      else this.trouble = answer.ok ? '' : 'nothing answers: its job may have ended. Trying again…';
    } catch {
      this.trouble = '';
    }
  }

  /* Gives up a connection on which nothing comes any more. */
  #listen() {
    if (this.socket === null) return;
    const patience = this.greeted ? Link.SILENCE : Link.OPENING;
    if (performance.now() - this.heard > patience) this.#drop();
  }

  #drop() {
    const socket = this.socket;
    this.#again();
    socket.close();
  }

  #hurry() {
    if (this.ended) return;
    this.#listen();
    if (this.socket === null) {
      this.pause = Link.FIRST_PAUSE;
      this.#connect();
    }
  }
}
