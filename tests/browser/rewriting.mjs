// An application that believes to be at the root of its host, and writes every address from there: nothing of it may miss.

import { createHash } from "node:crypto";
import { createServer } from "node:http";

import { until } from "./children.mjs";
import { contains, same, suite } from "./world.mjs";

const names = {
  page: "rewriting: a page's links, styles, scripts and modules",
  made: "rewriting: what scripts make at run time",
  strict: "rewriting: a page with a strict content security policy",
  form: "rewriting: a form, a redirect, and a link that a script follows",
};

const SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>';

const PAGE = `<!doctype html><html><head><meta charset="utf-8"><title>Nasty</title>
<link rel="icon" href="/icon.svg"><link rel="stylesheet" href="/style.css">
<script type="importmap">{"imports": {"named": "/named.js"}}</script>
<style>#inline { background: url("/inline.svg") }</style></head>
<body><img src="/picture.svg" alt=""><img srcset="/one.svg 1x, /two.svg 2x" alt=""><div id="css">css</div><div id="inline">x</div>
<div style="background-image: url(/attribute.svg)">x</div><iframe src="/frame" title="frame"></iframe>
<script src="/classic.js"></script><script type="module" src="/module.js"></script></body></html>`;

const MADE = `<!doctype html><html><head><title>Made</title><link rel="icon" href="data:,"></head><body><div id="here"></div><script>
const done = {};
const note = (name, value) => { done[name] = value; };
addEventListener("error", (event) => note("error", event.message));
(async () => {
  note("fetch", await (await fetch("/said?fetch")).text());
  note("request", await (await fetch(new Request("/said?request"))).text());
  note("own", await (await fetch(location.origin + "/said?own")).text());
  await new Promise((end) => {
    const request = new XMLHttpRequest();
    request.open("GET", "/said?xhr");
    request.onload = () => { note("xhr", request.responseText); end(); };
    request.send();
  });
  await new Promise((end) => {
    const source = new EventSource("/events");
    source.onmessage = (event) => { note("events", event.data); source.close(); end(); };
  });
  await new Promise((end) => {
    const socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/socket");
    socket.onmessage = (event) => { note("socket", event.data); socket.close(); end(); };
  });
  for (const type of ["classic", "module"]) {
    await new Promise((end) => {
      const worker = new Worker("/worker.js", { type });
      worker.onmessage = (event) => { note("worker-" + type, event.data); end(); };
    });
  }
  const loaded = (element) => new Promise((end) => { element.onload = () => end("loaded"); element.onerror = () => end("failed"); });
  const image = new Image(), property = loaded(image);
  image.src = "/property.svg";
  note("property", await property);
  const other = document.createElement("img"), attribute = loaded(other);
  other.setAttribute("src", "/attribute.svg");
  note("attribute", await attribute);
  document.getElementById("here").innerHTML = "<img src='/inner.svg' alt=''>";
  note("inner", await loaded(document.querySelector("#here img")));
  const script = document.createElement("script"), scripted = loaded(script);
  script.src = "/scripted.js";
  document.body.append(script);
  note("scripted", await scripted);
  note("import", (await import("/named.js")).default);
  note("beacon", navigator.sendBeacon("/beacon", "x"));
  document.cookie = "seen=1; path=/";
  note("cookie", document.cookie.includes("seen=1"));
  history.pushState(null, "", "/pushed");
  note("pushed", location.pathname);
  document.title = JSON.stringify(done);
})().catch((error) => { document.title = "failed: " + error; });
</script></body></html>`;

/** Answers every path; counts what it was asked for. */
async function nasty() {
  const asked = [];
  const server = createServer((request, response) => {
    const path = request.url.split("?")[0];
    asked.push(`${request.method} ${request.url}`);
    const say = (type, body, headers = {}) => response.writeHead(200, { "content-type": type, ...headers }).end(body);
    if (path === "/") return say("text/html", PAGE);
    if (path === "/made") return say("text/html", MADE);
    if (path === "/frame") return say("text/html", "<!doctype html><title>f</title><a href='/x'>framed</a>");
    if (path === "/style.css") return say("text/css", '@import "/more.css"; #css { background: url(/css.svg) }');
    if (path === "/more.css") return say("text/css", "#css { color: rgb(1, 2, 3) }");
    if (path.endsWith(".svg")) return say("image/svg+xml", SVG);
    if (path === "/classic.js") return say("text/javascript", "window.classic = true;");
    if (path === "/named.js") return say("text/javascript", "export default 'named';");
    if (path === "/deep/dep.js") return say("text/javascript", "import named from '../named.js'; export const dep = 'dep ' + named;");
    if (path === "/module.js") {
      return say("text/javascript", "import named from 'named'; import { dep } from '/deep/dep.js'; window.modules = `${named} ${dep}`;");
    }
    if (path === "/scripted.js") return say("text/javascript", "window.scripted = true;");
    if (path === "/worker.js") return say("text/javascript", "fetch('/said?worker').then((r) => r.text()).then((t) => postMessage(t));");
    if (path === "/said") return say("text/plain", request.url.split("?")[1]);
    if (path === "/beacon") return request.resume().on("end", () => response.writeHead(204).end());
    if (path === "/events") return say("text/event-stream", "data: told\n\n");
    if (path === "/strict") {
      const policy = "default-src 'none'; script-src 'nonce-abc'; connect-src 'self'; img-src 'self'; style-src 'self'";
      return say("text/html", `<!doctype html><html><head><title>Strict</title><link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/style.css"></head><body><div id="css">x</div><script nonce="abc">
fetch("/said?strict").then((r) => r.text()).then((t) => { document.title = t; });</script></body></html>`,
        { "content-security-policy": policy });
    }
    if (path === "/form") {
      return say("text/html", `<!doctype html><title>Form</title><link rel="icon" href="data:,"><form method="post" action="/posted"><input name="a" value="b">
<button>Send</button></form><button id="go" onclick="location.href='/next?by=script'">Go</button>`);
    }
    if (path === "/posted") return request.resume().on("end", () => response.writeHead(303, { location: "/next?by=redirect" }).end());
    if (path === "/next") return say("text/html", `<!doctype html><title>Next</title><link rel="icon" href="data:,"><p>${request.url}</p>`);
    response.writeHead(404).end();
  });
  server.on("upgrade", (request, socket) => {
    const key = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
    socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      + `Sec-WebSocket-Accept: ${key.digest("base64")}\r\n\r\n`);
    socket.write(Buffer.from([0x81, 4, ...Buffer.from("open")]));
    socket.on("error", () => {});
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { server, asked, prefix: `/fw2/localhost:${server.address().port}` };
}

export const run = (browser, report) => suite(browser, report, names, async (world, { visit }) => {
  const app = await nasty();
  const { prefix } = app;

  /** All that was asked for, but the script of ours, was below the prefix. */
  const expectBelow = (visitor, from) => {
    const elsewhere = visitor.requests.slice(from).map((url) => new URL(url)).filter((url) =>
      !["data:", "blob:"].includes(url.protocol) && !url.pathname.startsWith(`${prefix}/`) && url.pathname !== "/-/rewrite.js");
    if (elsewhere.length > 0) throw new Error(`asked elsewhere:\n  ${elsewhere.join("\n  ")}`);
  };

  await visit(names.page, async (visitor) => {
    const from = visitor.requests.length;
    same(await visitor.open(`${prefix}/`), 200, "the status");
    await until("the modules have run", () => visitor.page.evaluate(() => window.modules));
    same(await visitor.page.evaluate(() => window.modules), "named dep named", "the modules");
    same(await visitor.page.evaluate(() => window.classic), true, "the script");
    same(await visitor.page.evaluate(() => getComputedStyle(document.getElementById("css")).color), "rgb(1, 2, 3)", "the style");
    contains(await visitor.page.frameLocator("iframe").locator("body").innerText(), "framed", "the frame");
    const link = await visitor.page.frameLocator("iframe").locator("a").evaluate((a) => new URL(a.href).pathname);
    same(link, `${prefix}/x`, "the frame's link");
    for (const path of ["/picture.svg", "/one.svg", "/css.svg", "/inline.svg", "/attribute.svg", "/more.css", "/icon.svg"]) {
      await until(`${path} was asked for`, () => app.asked.includes(`GET ${path}`));
    }
    expectBelow(visitor, from);
  });

  await visit(names.made, async (visitor) => {
    const from = visitor.requests.length;
    await visitor.open(`${prefix}/made`);
    await until("the page is done", async () => (await visitor.page.title()).match(/^[{f]/));
    const title = await visitor.page.title();
    contains(title, "{", "what the page did");
    same(JSON.stringify(JSON.parse(title), null, 1), JSON.stringify({
      fetch: "fetch", request: "request", own: "own", xhr: "xhr", events: "told", socket: "open",
      "worker-classic": "worker", "worker-module": "worker", property: "loaded", attribute: "loaded", inner: "loaded",
      scripted: "loaded", import: "named", beacon: true, cookie: true, pushed: `${prefix}/pushed`,
    }, null, 1), "what the page did");
    await until("the beacon has arrived", () => app.asked.includes("POST /beacon"));
    const cookies = await visitor.context.cookies();
    same(cookies.find((cookie) => cookie.name === "seen").path, `${prefix}/`, "the cookie's path");
    expectBelow(visitor, from);
    // The page closes its stream of events itself.
  }, { known: [/\/events: net::ERR_ABORTED$/] });

  await visit(names.strict, async (visitor) => {
    await visitor.open(`${prefix}/strict`);
    await until("its script has run", async () => await visitor.page.title() === "strict");
    same(await visitor.page.evaluate(() => getComputedStyle(document.getElementById("css")).color), "rgb(1, 2, 3)", "the style");
  });

  await visit(names.form, async (visitor) => {
    await visitor.open(`${prefix}/form`);
    await visitor.page.click("form button");
    await visitor.page.waitForURL(`**${prefix}/next?by=redirect`);
    same(await visitor.page.innerText("p"), "/next?by=redirect", "the page");
    await visitor.open(`${prefix}/form`);
    await visitor.page.click("#go");
    await visitor.page.waitForURL(`**${prefix}/next?by=script`);
    same(await visitor.page.innerText("p"), "/next?by=script", "the page");
  });

  app.server.close();
});
