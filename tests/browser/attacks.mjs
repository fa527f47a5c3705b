// What a page of somebody else's application can do in its visitor's name, in each set-up of a cluster: with a host name for
// each application, with one for all of them, and with none. Bob's application attacks; alice, who is in his group, visits it.

import { until } from "./children.mjs";
import { configured, domain, heading, isThere, on, outside, shared, signIn, typePassword, url } from "./cluster.mjs";
import { Visitor, contains, same } from "./world.mjs";

const names = {
  none: "attacks: one host name alone: another user's application is not shown",
  domain: "attacks: a host name for each application: a page reaches neither the portal nor a neighbour",
  shared: "attacks: a host name for all applications: a page that its visitor trusts reaches neighbours, and not the portal",
  beside: "attacks: one host name and consent: a page that its visitor trusts reaches neighbours, and not the portal's pages",
};

const ASK = 'foreign_applications = "ask"';

/** Serves a page, a service worker's script, and a secret, on every address of its node. */
const APPLICATION = `
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        kind = "text/javascript" if path.endswith(".js") else "text/html"
        body = b"self.stale = 1;" if path.endswith(".js") else b"<!doctype html><link rel=icon href=data:,><title>" + sys.argv[1].encode() + b"</title><p>secret of " + sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Page).serve_forever()
`;

/** A job with an application of this user's on c1, for the members of `proj` if it is `lent`. */
async function application(user, lent) {
  const port = 20_000 + Math.floor(Math.random() * 10_000);
  await on("login", user, `cat >~/application.py <<'END'\n${APPLICATION}END`);
  const command = `exec python3 ~/application.py ${user} ${port}`;
  const script = lent ? `exec sg proj -c "${command}"` : command;
  const job = await on("login", user, `cd && sbatch --parsable --nodelist=c1 --output=/dev/null --wrap '${script}'`);
  await until(`${user}'s application listens`, () => on("c1", "root", `ss -ltn | grep -c :${port}`), 60_000);
  return { port, path: `/fw2/c1:${port}/`, end: () => on("login", user, `scancel ${job}`) };
}

/** What is tried from a page. `neighbour` is an application of the visitor's own. */
async function attack({ portal, neighbour, script }) {
  // An attacker uses functions that nobody has touched.
  const clean = document.body.appendChild(document.createElement("iframe")).contentWindow;
  globalThis.clean = clean;
  const text = (address, how) => clean.fetch(address, { credentials: "include", ...how }).then(async (r) => `${r.status} ${(await r.text()).slice(0, 80)}`, () => "refused");
  const framed = (address) => new Promise((done) => {
    const frame = document.createElement("iframe");
    const read = () => {
      try {
        done(frame.contentDocument ? frame.contentDocument.body.innerText : "unreadable");
      } catch { done("unreadable"); }
    };
    frame.onload = read;
    clean.Element.prototype.setAttribute.call(frame, "src", address);
    document.body.append(frame);
  });
  const registered = await navigator.serviceWorker.register(script).then(() => "registered", () => "refused");
  const workers = async () => (await navigator.serviceWorker.getRegistrations()).length;
  for (let tries = 0; tries < 100 && (await workers()) > 0; tries += 1) await new Promise((done) => setTimeout(done, 50));
  return {
    workspace: await text(`${portal}/`),
    listening: await text(`${portal}/-/listening`),
    signOut: await text(`${portal}/-/sign-out`, { method: "POST" }),
    frame: await framed(`${portal}/`),
    neighbour: await text(neighbour),
    workers: `${registered}, then ${await workers()}`,
    controlled: navigator.serviceWorker.controller !== null,
    cookies: document.cookie,
  };
}

/** Opens an address in a new window from the page, as it could, and tells what it can read of it. */
async function windowOf(visitor, address, shows) {
  const popup = visitor.context.waitForEvent("page");
  await visitor.page.evaluate((address) => { globalThis.opened = globalThis.clean.open(address); }, address);
  const opened = await popup;
  await opened.locator("body", { hasText: shows }).waitFor();
  const read = await visitor.page.evaluate(() => {
    try {
      return globalThis.opened?.document?.body?.innerText ?? "cut off";
    } catch { return "unreadable"; }
  });
  await opened.close();
  return read;
}

export async function run(_, report, launched) {
  if (!report.wants(...Object.values(names)) || !isThere(report, Object.values(names))) return;
  const browser = await outside(launched);
  const site = { browser, url, logTail: () => "" };
  const [bobs, alices] = [await application("bob", true), await application("alice", false)];
  const meet = (name, lines, body) => report.wants(name) && configured(lines, () => report.test(name, async () => {
    const visitor = await Visitor.begin(site);
    try {
      await signIn(visitor, "alice");
      await body(visitor);
    } catch (error) {
      error.stack += `\n${await on("login", "root", "journalctl --no-pager -o cat -n 25 -u 'portreeve*'")}`;
      throw error;
    } finally {
      await visitor.end();
    }
  }));
  /** What no set-up lets through. */
  const portalIsSafe = async (visitor, tried) => {
    for (const what of ["workspace", "listening", "signOut"]) {
      if (!/^(refused|403 )/.test(tried[what])) throw new Error(`${what}: ${tried[what]}`);
    }
    if (/Workspace/.test(tried.frame)) throw new Error(`the workspace in a frame: ${tried.frame}`);
    contains("cut off unreadable", await windowOf(visitor, `${url}/`, "Workspace"), "the workspace in a window");
    contains("cut off unreadable", await windowOf(visitor, `${url}/-/listening`, "node"), "the list of ports in a window");
    same(tried.controlled, false, "a service worker controls the page");
    same(tried.workers.split(", ").at(-1), "then 0", "service workers");
    same(tried.cookies, "", "cookies");
    await visitor.open("/");
    same(await heading(visitor.page), "Workspace", "the session lives");
  };
  const consent = async (visitor) => {
    await visitor.open(bobs.path);
    same(await heading(visitor.page), "Open bob's application?", "the page");
    await visitor.pictures(`consent-${new URL(visitor.page.url()).host}`);
    await visitor.page.getByRole("button", { name: /I trust bob/ }).click();
    await visitor.page.waitForFunction(() => document.title === "bob");
  };
  try {
    await meet(names.none, [], async (visitor) => {
      same(await visitor.open(bobs.path), 403, "the status");
      same(await heading(visitor.page), "This application needs an address of its own", "the page");
    });
    await meet(names.domain, [`apps_domain = "${domain}"`], async (visitor) => {
      const own = (app) => `https://c1-${app.port}-u${app === bobs ? 20002 : 20001}.fh.${domain}/`;
      const link = visitor.page.getByRole("link", { name: `c1:${alices.port}` });
      same(await link.getAttribute("href"), own(alices), "the workspace's link");
      await link.click();
      await visitor.page.waitForURL(own(alices));
      // Whoever comes there first is sent to sign in, and back: also by a form.
      const stranger = await Visitor.begin(site);
      await stranger.page.goto(own(alices));
      await typePassword(stranger.page, "alice");
      await stranger.page.waitForURL(own(alices));
      stranger.expectClean();
      await stranger.end();
      await visitor.open(bobs.path);
      same(visitor.page.url(), own(bobs), "where it is shown");
      const tried = await visitor.page.evaluate(attack, { portal: url, neighbour: own(alices), script: "/worker.js" });
      same(tried.neighbour, "refused", "the neighbour");
      await portalIsSafe(visitor, tried);
    });
    await meet(names.shared, [ASK, `apps_url = "${shared}"`], async (visitor) => {
      await consent(visitor);
      same(visitor.page.url(), `${shared}${bobs.path}`, "where it is shown");
      const neighbour = `${shared}${alices.path}`;
      const tried = await visitor.page.evaluate(attack, { portal: url, neighbour, script: "worker.js" });
      // This is what the visitor was told.
      contains(tried.neighbour, "secret of alice", "the neighbour");
      await portalIsSafe(visitor, tried);
    });
    await meet(names.beside, [ASK], async (visitor) => {
      await consent(visitor);
      same(visitor.page.url(), `${url}${bobs.path}`, "where it is shown");
      const neighbour = `${url}${alices.path}`;
      const tried = await visitor.page.evaluate(attack, { portal: url, neighbour, script: "worker.js" });
      contains(tried.neighbour, "secret of alice", "the neighbour");
      await portalIsSafe(visitor, tried);
    });
  } finally {
    await browser.close();
    await Promise.all([bobs.end(), alices.end()]);
  }
}
