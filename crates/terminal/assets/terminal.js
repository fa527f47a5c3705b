'use strict';

/* The page: the bar, the search, and what the server says. */
(() => {
  const at = id => document.getElementById(id);
  const title = at('title').textContent;
  let writer = { you: false, may: false, other: false };
  let until = 0;
  let ended = '';
  let linked = false;

  const state = (name, text) => {
    if (ended && name !== 'ended') return;
    at('state').dataset.is = name;
    at('state').textContent = text;
    at('state').title = text;
  };
  // A word on something that was done; then the state again.
  let word = 0;
  const remark = text => {
    const { is } = at('state').dataset;
    const before = word ? word.before : at('state').textContent;
    clearTimeout(word?.timer);
    at('state').textContent = text;
    word = { before, timer: setTimeout(() => { word = 0; if (at('state').dataset.is === is) at('state').textContent = before; }, 2500) };
  };

  const screen = new Screen(at('screen'), {
    typed: bytes => {
      if (writer.you || (writer.may && !writer.other)) link.type(bytes);
    },
    fits: ({ cols, rows }) => link.say({ type: 'resize', cols, rows }),
    title: text => { document.title = text ? `${text} – ${title}` : title; },
    found: text => { at('found').value = text; },
  });

  const files = new Files(open => {
    at('show-files').setAttribute('aria-expanded', String(open));
    if (!open) screen.term.focus();
  });

  const allow = () => {
    const may = !ended && linked && writer.may;
    screen.allow(writer.you && !ended, may && (writer.you || !writer.other));
    at('take').hidden = !may || writer.you || !writer.other;
    at('paste').disabled = !may || (writer.other && !writer.you);
    document.body.classList.toggle('looks', !writer.you);
    at('show-files').hidden = !writer.may;
    files.allow(writer.may && linked);
    if (!ended && linked) state('connected', !writer.you && writer.other ? 'connected, read-only' : 'connected');
  };

  // Old output ends at `until`: what comes after it is live.
  const oldUntil = (offset, end) => {
    until = end;
    screen.then(() => { screen.quiet = offset < end; });
  };

  const link = new Link({
    where: () => screen.size,
    state,
    message: message => {
      switch (message.type) {
        case 'hello':
          linked = true;
          oldUntil(message.offset, message.until);
          break;
        case 'snapshot':
          screen.then(() => {
            screen.term.reset();
            screen.term.resize(message.cols, message.rows);
          });
          oldUntil(message.offset, message.until);
          break;
        case 'size':
          screen.then(() => screen.term.resize(message.cols, message.rows));
          break;
        case 'writer':
          writer = message;
          allow();
          break;
        case 'exited': {
          const how = 'code' in message ? `ended with code ${message.code}` : `ended by signal ${message.signal}`;
          screen.then(() => {
            ended = how;
            state('ended', writer.may ? `${how} – Files works for 2 minutes more` : how);
            allow();
          });
          break;
        }
      }
    },
    output: (offset, bytes, shown) => {
      const old = until - offset;
      if (old <= 0 || old > bytes.length) {
        screen.write(bytes, shown);
        return;
      }
      screen.write(bytes.subarray(0, old), () => { screen.quiet = false; });
      screen.write(bytes.subarray(old), shown);
    },
    dead: () => {
      linked = false;
      allow();
      if (ended) state('ended', ended);
    },
  });

  const copy = async () => {
    const text = screen.term.getSelection();
    if (text === '') return remark('nothing is selected');
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without a secure context there is the old way, through a field.
      const field = document.body.appendChild(document.createElement('textarea'));
      field.className = 'unseen';
      field.value = text;
      field.select();
      document.execCommand('copy');
      field.remove();
    }
    remark('copied');
    screen.term.focus();
  };

  const paste = async () => {
    screen.term.focus();
    try {
      screen.term.paste(await navigator.clipboard.readText());
    } catch {
      remark('press Ctrl+Shift+V to paste');
    }
  };

  const search = open => {
    at('search').hidden = !open;
    at('find').setAttribute('aria-expanded', String(open));
    if (open) {
      const text = screen.term.getSelection();
      if (text && !text.includes('\n')) at('sought').value = text;
      at('sought').select();
      at('sought').focus();
      screen.find(at('sought').value, { incremental: true });
    } else {
      screen.find('');
      screen.term.focus();
    }
  };

  const shortcuts = {
    KeyF: () => search(true),
    KeyC: copy,
    KeyB: () => at('bar').querySelector('button:not([hidden])').focus(),
  };
  const shortcut = event => {
    if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return false;
    const act = shortcuts[event.code];
    if (act && event.type === 'keydown') {
      event.preventDefault();
      event.stopPropagation();
      act();
    }
    // The browser pastes, and xterm.js takes that.
    return act !== undefined || event.code === 'KeyV';
  };
  screen.term.attachCustomKeyEventHandler(event => !shortcut(event));
  document.addEventListener('keydown', event => {
    if (event.target !== screen.term.textarea) shortcut(event);
  });

  at('take').addEventListener('click', () => {
    link.say({ type: 'take' });
    screen.term.focus();
  });
  at('find').addEventListener('click', () => search(at('search').hidden));
  at('show-files').addEventListener('click', () => files.show(!files.shown));
  at('copy').addEventListener('click', copy);
  at('paste').addEventListener('click', paste);
  at('smaller').addEventListener('click', () => screen.larger(-1));
  at('larger').addEventListener('click', () => screen.larger(1));
  const reader = () => at('reader').setAttribute('aria-pressed', String(screen.read));
  at('reader').addEventListener('click', () => {
    screen.read = !screen.read;
    reader();
  });
  reader();
  at('search').addEventListener('submit', event => {
    event.preventDefault();
    screen.find(at('sought').value);
  });
  at('sought').addEventListener('input', () => screen.find(at('sought').value, { incremental: true }));
  at('search').addEventListener('keydown', event => {
    if (event.key === 'Escape') search(false);
    if (event.key === 'Enter' && event.shiftKey && event.target === at('sought')) {
      event.preventDefault();
      screen.find(at('sought').value, { back: true });
    }
  });
  at('previous').addEventListener('click', () => screen.find(at('sought').value, { back: true }));
  at('done').addEventListener('click', () => search(false));
  screen.term.focus();
})();
