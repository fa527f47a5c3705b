// Loads one page in Chromium, over and over, each time with an empty cache, and tells what was asked for and when it was there.
//
//   node browser.mjs JOB.json
//
// JOB: {chromium, certificate, address, names, cookies, drawn, seconds}; `names` are rules of the resolver; `drawn` has, by a name, selectors of what must be seen, and the page
// counts as loaded when all is. Prints {first, loads}. Needs PORTREEVE_NODE_MODULES, as the browser's tests do.

import { X509Certificate, createHash } from "node:crypto";
import { readFileSync } from "node:fs";

import { chromium } from "../../tests/browser/playwright.mjs";

/** So long nothing may be under way before the page counts as loaded; the wait itself is not counted. */
const QUIET_MS = 200;
const PATIENCE_MS = 60_000;

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));

const hundredths = (number) => Math.round(number * 100) / 100;

/** What a page asks for, as the browser's network stack sees it. Times in ms since the page was asked for. */
class Record {
  constructor(tools) {
    this.requests = new Map();
    this.sockets = new Map();
    this.changed = performance.now();
    const on = (event, then) => tools.on(`Network.${event}`, then);
    on("requestWillBeSent", (event) => this.#begun(event));
    on("responseReceived", ({ requestId: id, response }) => this.#answered(id, response));
    on("loadingFinished", ({ requestId: id, timestamp, encodedDataLength }) => this.#of(id, { end: timestamp, bytes: encodedDataLength }));
    on("loadingFailed", ({ requestId: id, timestamp, errorText }) => this.#of(id, { end: timestamp, failed: errorText }));
    on("webSocketCreated", ({ requestId: id, url }) => this.sockets.set(id, { path: new URL(url).pathname }));
    on("webSocketHandshakeResponseReceived", ({ requestId: id, response }) => (this.sockets.get(id).status = response.status));
  }

  #begun({ requestId: id, request, timestamp, wallTime, redirectResponse }) {
    if (!request.url.startsWith("http")) return;
    this.first ??= { timestamp, wallTime };
    // What a request is redirected to has its id.
    if (redirectResponse) {
      this.requests.set(`${id} ${timestamp}`, { ...this.requests.get(id), status: redirectResponse.status, end: timestamp });
    }
    this.requests.set(id, { method: request.method, path: new URL(request.url).pathname, start: timestamp });
    this.changed = performance.now();
  }

  #answered(id, { status, securityDetails: tls }) {
    this.tls ??= tls && `${tls.protocol} ${tls.cipher}`;
    this.#of(id, { status });
  }

  #of(id, what) {
    if (this.requests.has(id)) Object.assign(this.requests.get(id), what);
    this.changed = performance.now();
  }

  get isQuiet() {
    return performance.now() - this.changed > QUIET_MS && [...this.requests.values()].every(({ end }) => end);
  }

  /** `drawn` is in ms by the wall clock; the network's events are in seconds by a clock of their own. */
  report(drawn) {
    const { timestamp, wallTime } = this.first;
    const requests = [...this.requests.values()].map(({ start, end, ...other }) => (
      { ...other, start: hundredths((start - timestamp) * 1000), ms: hundredths((end - start) * 1000) }));
    for (const name in drawn) drawn[name] = hundredths(drawn[name] - wallTime * 1000);
    return { drawn, requests, sockets: [...this.sockets.values()], tls: this.tls ?? null };
  }
}

/** In the page: notes at each frame what is to be seen by then. */
function watch(drawn) {
  const seen = {};
  const look = () => {
    for (const [name, selectors] of Object.entries(drawn)) {
      if (selectors.every((s) => document.querySelector(s)?.checkVisibility())) seen[name] ??= performance.timeOrigin + performance.now();
    }
    if (Object.keys(drawn).every((name) => name in seen)) window.drawnAt = seen;
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}

/** One load in a profile of its own, which has nothing but the cookies. Gives what was recorded, and the cookies it has then. */
async function load(browser, cookies) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  context.setDefaultTimeout(PATIENCE_MS);
  await context.addCookies(cookies);
  await context.addInitScript(watch, job.drawn);
  const page = await context.newPage();
  const tools = await context.newCDPSession(page);
  const record = new Record(tools);
  await tools.send("Network.enable");
  await page.goto(job.address, { waitUntil: "commit" });
  const drawn = await (await page.waitForFunction(() => window.drawnAt)).jsonValue();
  const deadline = performance.now() + PATIENCE_MS;
  while (!record.isQuiet) {
    if (performance.now() > deadline) throw new Error(`not quiet within ${PATIENCE_MS / 1000} s`);
    await new Promise((done) => setTimeout(done, 20));
  }
  // Now: what begins later may have no end yet.
  const seen = record.report(drawn);
  const kept = await context.cookies();
  await context.close();
  return [seen, kept];
}

const key = new X509Certificate(readFileSync(job.certificate)).publicKey.export({ type: "spki", format: "der" });
const browser = await chromium.launch({
  executablePath: job.chromium,
  // Its own sandbox works neither for root nor in most containers; nothing but this one page is shown.
  chromiumSandbox: false,
  args: [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    `--host-resolver-rules=${job.names}`,
    // Its certificate counts as good: behind a bad one nothing of a page is cached, not even for that same page.
    `--ignore-certificate-errors-spki-list=${createHash("sha256").update(key).digest("base64")}`,
  ],
});
try {
  // The first load warms up the browser and the application, and signs in wherever that is needed.
  const [first, cookies] = await load(browser, job.cookies);
  const loads = [];
  const end = performance.now() + job.seconds * 1000;
  while (performance.now() < end || loads.length === 0) loads.push((await load(browser, cookies))[0]);
  console.log(JSON.stringify({ first, loads }));
} catch (error) {
  console.error(error.message.split("\n")[0]);
  process.exitCode = 1;
} finally {
  await browser.close();
}
