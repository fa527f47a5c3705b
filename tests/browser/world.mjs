// A portal of its own for a suite, browsers that visit it, and what a page must never do.

import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

import { end, listening, start, until } from "./children.mjs";

const program = process.env.PORTREEVE_PROGRAM;
const made = resolve(process.env.PORTREEVE_NODE_MODULES, "../..");
export const screenshots = join(made, "screenshots");
mkdirSync(screenshots, { recursive: true });

const SHOWN = '<!doctype html><link rel="icon" href="data:,"><title>Shown</title><p>Here I am.</p>';

export const PHONE = { width: 390, height: 844 };
export const DESKTOP = { width: 1280, height: 800 };

/** A running portal with a state directory of its own; `config` is the text of its configuration file, if it has one. */
/** What a page of the portal's own asks for by itself. */
const isNews = (request) => "x-portreeve-page" in request.headers();

export class World {
  static async begin(browser, config) {
    const world = new World();
    world.browser = browser;
    world.dir = mkdtempSync(join(tmpdir(), "portreeve-browser-"));
    // Also when a test fails before its own end.
    world.tidy = () => rmSync(world.dir, { recursive: true, force: true });
    process.once("exit", world.tidy);
    world.state = join(world.dir, "state");
    world.shown = join(world.dir, "shown");
    mkdirSync(world.shown);
    writeFileSync(join(world.shown, "index.html"), SHOWN);
    mkdirSync(join(world.shown, "walk"));
    writeFileSync(join(world.shown, "walk", "file one.txt"), "text of file one");
    world.log = join(world.dir, "portal.log");
    const out = join(world.dir, "portal.out");
    const args = ["up", "--listen", "127.0.0.1:0", "--state", world.state];
    if (config) {
      writeFileSync(join(world.dir, "portreeve.toml"), config);
      args.push("--config", join(world.dir, "portreeve.toml"));
    }
    // Its jobs run login shells, whose profiles are no part of the test.
    world.portal = start(program, args, { stdout: out, stderr: world.log, env: { ...process.env, HOME: world.dir } });
    const printed = await until("the portal is ready", () => {
      const text = readFileSync(out, "utf8");
      return /^sign in: .*\n/m.test(text) && text;
    }).catch((error) => {
      throw new Error(`${error.message}\n${world.logTail()}`);
    });
    world.url = /^portal: (\S+)\/$/m.exec(printed)[1];
    world.port = Number(new URL(world.url).port);
    world.firstSignIn = /^sign in: (\S+)$/m.exec(printed)[1];
    return world;
  }

  async end() {
    await end(this.portal);
    process.off("exit", this.tidy);
    this.tidy();
  }

  logTail(lines = 25) {
    return readFileSync(this.log, "utf8").trimEnd().split("\n").slice(-lines).map((line) => `    ${line}`).join("\n");
  }

  /** Runs `portreeve COMMAND --state STATE ARGS`, and gives what it printed. */
  async command(command, ...args) {
    const { stdout } = await promisify(execFile)(program, [command, "--state", this.state, ...args]);
    return stdout.trim();
  }

  /** A fresh sign-in address. */
  login() {
    return this.command("login");
  }

  forward(name, target) {
    return this.command("forward", "add", name, target);
  }

  /** The address of an application's own origin. */
  own(label) {
    return `https://${label}.localhost:${this.port}`;
  }

  /** A visitor with a browser profile of their own, who has not signed in. */
  stranger(options) {
    return Visitor.begin(this, options);
  }

  /** A visitor who has signed in, and looks at the workspace. */
  async visitor(options) {
    const visitor = await Visitor.begin(this, options);
    await visitor.page.goto(await this.login());
    return visitor;
  }

  /** A Python `http.server` with one page, and a directory `walk` with a file. */
  async fileServer(port) {
    const args = ["-m", "http.server", String(port), "--bind", "127.0.0.1", "--directory", this.shown];
    const child = start("python3", args, { cwd: "/" });
    await listening(port);
    return child;
  }
}

/**
 * Runs the tests of a suite in a portal of its own, unless none of `names` is asked for. `body` gets the portal and three
 * kinds of tests: `test`, which begins and ends everything itself; `visit`, whose visitor has signed in; and `meet`, whose
 * visitor has not. In the last two nothing may go wrong in the browser but what is `known`; `browser` are its options.
 */
export async function suite(browser, report, names, body, config) {
  if (!report.wants(...Object.values(names))) return;
  const world = await World.begin(browser, config);
  const test = (name, run) => report.test(name, run, world);
  const by = (begin) => (name, run, { known = [], browser: options } = {}) => test(name, async () => {
    const visitor = await begin(options);
    try {
      await run(visitor);
      visitor.expectClean(...known);
    } finally {
      await visitor.end();
    }
  });
  await body(world, { test, visit: by((options) => world.visitor(options)), meet: by((options) => world.stranger(options)) });
  await world.end();
}

/** One person's browser: its own cookies, and a record of whatever went wrong in it. */
export class Visitor {
  static async begin(world, options = {}) {
    const visitor = new Visitor();
    visitor.world = world;
    visitor.context = await world.browser.newContext({ ignoreHTTPSErrors: true, viewport: DESKTOP, ...options });
    visitor.context.setDefaultTimeout(15_000);
    visitor.wrong = [];
    visitor.requests = [];
    const bodiless = new WeakSet();
    await visitor.context.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => {
        console.error(`violates its policy: ${event.violatedDirective} ${event.blockedURI}`);
      });
    });
    visitor.context.on("request", (request) => isNews(request) || visitor.requests.push(request.url()));
    visitor.context.on("requestfailed", (request) => {
      // An answer without a body counts as aborted when no script asks for that body, through a portal or not.
      const aborted = request.failure()?.errorText === "net::ERR_ABORTED";
      if (bodiless.has(request) && aborted) return;
      // The workspace's page is left while it watches for news.
      if (aborted && request.resourceType() === "fetch" && isNews(request)) return;
      visitor.wrong.push(`request failed: ${request.method()} ${request.url()}: ${request.failure()?.errorText}`);
    });
    visitor.context.on("response", (response) => {
      if (response.status() === 204 || response.request().method() === "HEAD") bodiless.add(response.request());
      // A navigation that is refused is what a test is about; what a page loads must be there.
      if (response.status() >= 400 && !response.request().isNavigationRequest()) {
        visitor.wrong.push(`${response.status()}: ${response.request().method()} ${response.url()}`);
      }
    });
    visitor.context.on("console", (message) => {
      // Chromium says this of every answer from 400 up; the line above judges those.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
        visitor.wrong.push(`console: ${message.text()} (${message.location().url})`);
      }
    });
    visitor.context.on("weberror", (error) => visitor.wrong.push(`script: ${error.error().message}`));
    visitor.page = await visitor.context.newPage();
    return visitor;
  }

  /** Opens a path of the portal, or a whole address; gives the status. */
  async open(address) {
    const reply = await this.page.goto(new URL(address, this.world.url).href);
    return reply.status();
  }

  /** Throws unless nothing went wrong in this browser but what is listed. */
  expectClean(...known) {
    const unknown = this.wrong.filter((line) => !known.some((pattern) => pattern.test(line)));
    if (unknown.length > 0) throw new Error(`the browser complains:\n  ${unknown.join("\n  ")}`);
  }

  /** Throws unless every request went to one of these origins. */
  expectOnly(...origins) {
    const elsewhere = this.requests.filter((url) => {
      const { origin, protocol } = new URL(url);
      return !["data:", "blob:"].includes(protocol) && !origins.includes(origin);
    });
    if (elsewhere.length > 0) throw new Error(`asked elsewhere:\n  ${[...new Set(elsewhere)].join("\n  ")}`);
  }

  /** Pictures of the page as it is: phone and desktop, light and dark. Nothing may be cut off at the side. */
  async pictures(name) {
    for (const [size, viewport] of [["phone", PHONE], ["desktop", DESKTOP]]) {
      await this.page.setViewportSize(viewport);
      const over = await this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (over > 0) throw new Error(`${name} is ${over} px wider than a ${size}`);
      for (const colorScheme of ["light", "dark"]) {
        await this.page.emulateMedia({ colorScheme });
        await this.page.screenshot({ path: join(screenshots, `${name}-${size}-${colorScheme}.png`), fullPage: true });
      }
    }
    await this.page.emulateMedia({ colorScheme: null });
    await this.page.setViewportSize(DESKTOP);
  }

  end() {
    return this.context.close();
  }
}

/** Throws unless they are equal. */
export function same(found, expected, what) {
  if (found !== expected) throw new Error(`${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}

/** Throws unless `text` contains `part`. */
export function contains(text, part, what) {
  if (!text.includes(part)) throw new Error(`${what}: expected ${JSON.stringify(part)} in ${JSON.stringify(text.slice(0, 600))}`);
}
