'use strict';

/* What is shown: xterm.js, its colours, and what it does in the order in which the server said it.

   `on` has: typed(bytes), fits({cols, rows}), title(text), found(text), leave(). */
class Screen {
  static LIGHT = {
    background: '#ffffff', foreground: '#1b2733', cursor: '#0b5c8a', cursorAccent: '#ffffff', selectionBackground: '#b9d9ee',
    black: '#1b2733', red: '#b42318', green: '#1a7f37', yellow: '#8a5a00', blue: '#0b5c8a', magenta: '#86198f', cyan: '#0e7490',
    white: '#6b7783', brightBlack: '#55626f', brightRed: '#d92d20', brightGreen: '#208a42', brightYellow: '#9a6700',
    brightBlue: '#1d6fd1', brightMagenta: '#a21caf', brightCyan: '#0b7f95', brightWhite: '#55626f',
  };
  static DARK = {
    background: '#12181e', foreground: '#e6ebf0', cursor: '#6cb8e6', cursorAccent: '#12181e', selectionBackground: '#2f5570',
    black: '#303b46', red: '#ff7b72', green: '#56d364', yellow: '#e3b341', blue: '#79c0ff', magenta: '#d2a8ff', cyan: '#56d4dd',
    white: '#c9d1d9', brightBlack: '#8b98a5', brightRed: '#ffa198', brightGreen: '#7ee787', brightYellow: '#f2cc60',
    brightBlue: '#a5d6ff', brightMagenta: '#e2c5ff', brightCyan: '#b3f0ff', brightWhite: '#ffffff',
  };
  static FOUND = {
    light: { matchBackground: '#ffe58f', activeMatchBackground: '#ffb84d', matchOverviewRuler: '#c77700', activeMatchColorOverviewRuler: '#c77700' },
    dark: { matchBackground: '#5c4a12', activeMatchBackground: '#9a6700', matchOverviewRuler: '#e3b341', activeMatchColorOverviewRuler: '#e3b341' },
  };
  static SIZES = { least: 8, usual: 14, most: 32 };

  constructor(place, on) {
    this.on = on;
    this.queue = [];
    this.writing = 0;
    // Output that is old: nobody waits for an answer to it.
    this.quiet = true;
    this.typing = false;
    this.dark = matchMedia('(prefers-color-scheme: dark)');
    const open = (event, address) => {
      if (/^https?:/i.test(address)) window.open(address, '_blank', 'noopener,noreferrer');
    };
    const hover = (event, address) => { place.title = address; };
    const leave = () => { place.title = ''; };
    this.term = new Terminal({
      allowProposedApi: true,
      disableStdin: true,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace',
      fontSize: Screen.#kept('size', Screen.SIZES.usual),
      linkHandler: { activate: open, hover, leave },
      macOptionIsMeta: true,
      minimumContrastRatio: 4.5,
      screenReaderMode: Screen.#kept('reader', false),
      scrollback: 20_000,
      theme: this.#theme(),
    });
    this.fit = new FitAddon.FitAddon();
    this.search = new SearchAddon.SearchAddon();
    this.term.loadAddon(this.fit);
    this.term.loadAddon(this.search);
    this.term.loadAddon(new Unicode11Addon.Unicode11Addon());
    this.term.loadAddon(new WebLinksAddon.WebLinksAddon(open, { hover, leave }));
    this.term.unicode.activeVersion = '11';
    this.#answerNothingOld();
    this.place = place.appendChild(document.createElement('div'));
    this.term.open(this.place);
    const encoder = new TextEncoder();
    this.term.onData(text => {
      // That the window has or lost the focus is an answer as well.
      if (!/^\x1b\[[IO]$/.test(text) || !this.#silent) on.typed(encoder.encode(text));
    });
    this.term.onBinary(text => on.typed(Uint8Array.from(text, unit => unit.charCodeAt(0))));
    this.term.onTitleChange(text => on.title(text));
    this.search.onDidChangeResults(({ resultIndex, resultCount }) => {
      if (resultCount === 0) on.found('nothing found');
      else on.found(resultIndex < 0 ? `${resultCount} found` : `${resultIndex + 1} of ${resultCount}`);
    });
    this.dark.addEventListener('change', () => { this.term.options.theme = this.#theme(); });
    new ResizeObserver(() => this.#measure()).observe(this.place);
  }

  /* Bytes, and what to do when they are on the screen. */
  write(bytes, shown) {
    this.queue.push({ bytes, shown });
    this.#pump();
  }

  /* Does it when everything before it is on the screen. */
  then(act) {
    this.queue.push({ act });
    this.#pump();
  }

  #pump() {
    while (this.queue.length > 0) {
      const { bytes, shown, act } = this.queue[0];
      if (act) {
        if (this.writing > 0) return;
        this.queue.shift();
        act();
      } else {
        this.queue.shift();
        this.writing++;
        this.term.write(bytes, () => {
          this.writing--;
          shown();
          this.#pump();
        });
      }
    }
  }

  /* Programs ask a terminal things, and it answers as if it typed. What is shown again was answered long ago, and of
     several browsers one answers. */
  #answerNothingOld() {
    const silent = () => this.#silent;
    const parser = this.term.parser;
    for (const id of [
      { final: 'c' }, { prefix: '>', final: 'c' }, { prefix: '=', final: 'c' }, { final: 'n' }, { prefix: '?', final: 'n' },
      { intermediates: '$', final: 'p' }, { prefix: '?', intermediates: '$', final: 'p' }, { prefix: '>', final: 'q' },
      { final: 't' }, { prefix: '?', final: 'u' },
    ]) parser.registerCsiHandler(id, silent);
    parser.registerDcsHandler({ intermediates: '$', final: 'q' }, silent);
    for (const colour of [4, 10, 11, 12]) parser.registerOscHandler(colour, text => text.includes('?') && silent());
  }

  get #silent() {
    return this.quiet || !this.typing;
  }

  get size() {
    return this.fit.proposeDimensions() ?? { cols: 80, rows: 24 };
  }

  #measure() {
    cancelAnimationFrame(this.measuring);
    this.measuring = requestAnimationFrame(() => {
      const size = this.size;
      if (Number.isFinite(size.cols) && Number.isFinite(size.rows)) this.on.fits(size);
    });
  }

  /* Whether keys do anything here. */
  allow(typing, mayType) {
    this.typing = typing;
    this.term.options.disableStdin = !mayType;
    this.term.options.cursorBlink = typing;
  }

  larger(by) {
    const { least, most } = Screen.SIZES;
    this.term.options.fontSize = Math.min(most, Math.max(least, this.term.options.fontSize + by));
    Screen.#keep('size', this.term.options.fontSize);
    this.#measure();
  }

  get read() {
    return this.term.options.screenReaderMode;
  }

  set read(on) {
    this.term.options.screenReaderMode = on;
    Screen.#keep('reader', on);
  }

  find(text, { back = false, incremental = false } = {}) {
    const decorations = this.dark.matches ? Screen.FOUND.dark : Screen.FOUND.light;
    if (text === '') {
      this.search.clearDecorations();
      this.on.found('');
    } else if (back) {
      this.search.findPrevious(text, { decorations });
    } else {
      this.search.findNext(text, { decorations, incremental });
    }
  }

  #theme() {
    return this.dark.matches ? Screen.DARK : Screen.LIGHT;
  }

  static #kept(name, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(`portreeve-terminal ${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  }

  static #keep(name, value) {
    try {
      localStorage.setItem(`portreeve-terminal ${name}`, JSON.stringify(value));
    } catch {
      // It is kept for as long as the page is open.
    }
  }
}
