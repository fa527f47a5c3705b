// Other people's applications, as their users start them: none is told where it appears. Each is visited directly, below a
// prefix, and in an origin of its own, and does there what people do with it. The browser may complain of nothing behind the
// portal of which it does not complain without it.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { end, freePort, listening, start } from "./children.mjs";
import { bokeh } from "./referees/bokeh.mjs";
import { directory } from "./referees/directory.mjs";
import { django } from "./referees/django.mjs";
import { jupyter } from "./referees/jupyter.mjs";
import { marimo } from "./referees/marimo.mjs";
import { nasty } from "./referees/nasty.mjs";
import { novnc } from "./referees/novnc.mjs";
import { streamlit } from "./referees/streamlit.mjs";
import { tensorboard } from "./referees/tensorboard.mjs";
import { vite } from "./referees/vite.mjs";
import { Visitor, screenshots, suite } from "./world.mjs";

const all = process.env.PORTREEVE_TESTS_ALL === "1";
const venv = process.env.PORTREEVE_TEST_VENV;
const pictures = join(screenshots, "referees");

/**
 * An application: `name`; whether it is `heavy`, and left to `tests/run --all`; `needs`, files without which it is skipped;
 * `begin(place)`, which starts it and gives its port; `use(page, app)`, what is done in its page, from `path` on. One that is
 * `proud` answers to its own name alone: it is opened by a forward that has it told that.
 */
const applications = [directory, nasty, django, jupyter, tensorboard, streamlit, bokeh, marimo, novnc, vite];

const named = (app, form) => `referees: ${app.name}, ${form}`;
const forms = ["below a prefix", "in an origin of its own"];

export async function run(browser, report) {
  const wanted = applications.filter((app) => report.wants(...forms.map((form) => named(app, form))));
  const runs = [];
  for (const app of wanted) {
    const missing = app.needs?.({ venv }).find((path) => !existsSync(path));
    const why = app.heavy && !all ? "left to tests/run --all" : missing && `needs ${missing}`;
    if (why) for (const form of forms) report.skipped(named(app, form), why);
    else runs.push(app);
  }
  if (runs.length === 0) return;
  mkdirSync(pictures, { recursive: true });
  const names = runs.flatMap((app) => forms.map((form) => named(app, form)));
  await suite(browser, report, names, async (world) => {
    for (const app of runs) await judge(world, report, app);
  });
}

async function judge(world, report, app) {
  const short = app.name.toLowerCase().replaceAll(/[^a-z]+/g, "-");
  const place = new Place(short);
  try {
    const running = await app.begin(place);
    const { port } = running;
    let addresses = { path: `${world.url}/fw2/localhost:${port}/`, own: `${world.own(`localhost-${port}`)}/` };
    if (app.proud) {
      await world.command("forward", "add", short, `http://localhost:${port}/`, "--target-host");
      addresses = { path: `${world.url}/fw/${short}/`, own: `${world.own(`${short}.fn`)}/` };
    }
    const direct = await visit(world, app, running, `http://localhost:${port}/`, `${short}-direct`, () => Visitor.begin(world));
    for (const [form, kind] of [[forms[0], "path"], [forms[1], "own"]]) {
      await report.test(named(app, form), async () => {
        if (direct.error) throw direct.error;
        const seen = await visit(world, app, running, addresses[kind], `${short}-${kind}`, () => world.visitor());
        if (seen.error) throw Object.assign(seen.error, { stack: `${seen.error.stack}\n  the browser says:\n  ${seen.wrong.join("\n  ")}\n${place.logTail()}` });
        const added = seen.wrong.filter((line) => !direct.wrong.includes(line));
        if (added.length > 0) throw new Error(`the browser complains, as it does not without the portal:\n  ${added.join("\n  ")}\n${place.logTail()}`);
        const elsewhere = seen.origins.filter((origin) => !direct.origins.includes(origin) && ![world.url, new URL(addresses.own).origin].includes(origin));
        if (elsewhere.length > 0) throw new Error(`asked elsewhere: ${elsewhere}`);
      }, world);
    }
    await sideBySide(world, short);
  } catch (error) {
    for (const form of forms) report.failed(named(app, form), `${error.stack}\n${place.logTail()}`);
  } finally {
    await place.end();
  }
}

/** One visit: what went wrong in it, with all addresses of the application's read alike, and a picture. */
async function visit(world, app, running, address, picture, begin) {
  const visitor = await begin();
  const seen = { wrong: [], origins: [], error: undefined };
  try {
    visitor.wrong.length = 0;
    visitor.requests.length = 0;
    visitor.page.setDefaultTimeout(30_000);
    await visitor.page.goto(new URL(app.path ?? "", address).href);
    await app.use(visitor.page, running);
  } catch (error) {
    seen.error = error;
  }
  await visitor.page.screenshot({ path: join(pictures, `${picture}.png`) }).catch(() => {});
  const { host } = new URL(address);
  const read = (line) => line
    .replaceAll(address, "APP/").replaceAll(address.replace(/^http/, "ws"), "APP/").replaceAll(new URL(address).origin, "APP")
    .replaceAll(host, "APP").replaceAll(/[0-9a-f-]{8,}|\d+/g, "N").replaceAll(/[?&][^ ]*/g, "")
    // HTTP/2 has no reason beside the status.
    .replaceAll(/ (File )?not found/gi, "").replaceAll(/ +/g, " ");
  seen.wrong = [...new Set(visitor.wrong.map(read))];
  const origins = visitor.requests.map((url) => new URL(url)).filter(({ protocol }) => /^(https?|wss?):$/.test(protocol));
  seen.origins = [...new Set(origins.map((url) => url.origin))];
  await visitor.end();
  return seen;
}

/** The three pictures in one, to be looked at. */
async function sideBySide(world, short) {
  const page = await world.browser.newPage({ viewport: { width: 1500, height: 420 } });
  const image = (kind) => {
    const file = join(pictures, `${short}-${kind}.png`);
    return existsSync(file) ? `<figure style="margin:0"><img width=480 src="data:image/png;base64,${readFileSync(file, "base64")}"><figcaption>${kind}</figcaption></figure>` : "";
  };
  await page.setContent(`<body style="display:flex;gap:8px;font:16px sans-serif">${["direct", "path", "own"].map(image).join("")}`);
  await page.screenshot({ path: join(pictures, `${short}.png`) });
  await page.close();
}

/** A directory of its own, and the programs that run for an application. */
class Place {
  #children = [];
  #tasks = [];
  #programs = 0;

  constructor(short) {
    this.dir = mkdtempSync(join(tmpdir(), `portreeve-${short}-`));
    this.venv = venv;
    this.modules = process.env.PORTREEVE_REFEREE_MODULES;
  }

  port() {
    return freePort();
  }

  /** Done at the end, for what is no program of its own. */
  onEnd(task) {
    this.#tasks.push(task);
  }

  /** Starts a program, which logs into the directory, and waits for `port`. */
  async run(program, args, { port, cwd = this.dir, env = {} } = {}) {
    this.log = join(this.dir, `log-${(this.#programs += 1)}`);
    const child = start(program, args, {
      cwd, stdout: this.log, stderr: this.log,
      env: { PATH: `${join(venv, "bin")}:${process.env.PATH}`, HOME: this.dir, LANG: "C.UTF-8", ...env },
    });
    this.#children.unshift(child);
    if (port) await listening(port, 60_000);
    return child;
  }

  logTail() {
    if (!this.log || !existsSync(this.log)) return "";
    return readFileSync(this.log, "utf8").trimEnd().split("\n").slice(-15).map((line) => `    ${line}`).join("\n");
  }

  async end() {
    for (const child of this.#children) await end(child);
    for (const task of this.#tasks) await task();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
