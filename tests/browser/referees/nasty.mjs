// A directory of nasty HTML: what browsers put up with, written from the root of the host. Each page says in its title what of
// it did not work.

import { createServer } from "node:http";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";

import { same } from "../world.mjs";

const SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect id="s" width="8" height="8"/></svg>';

/** Runs in each page, last: which pictures and frames are not there, and what the page itself found. */
const CHECK = `<script>
globalThis.bad ??= [];
globalThis.waits ??= [];
addEventListener("load", async () => {
  for (const image of document.images) if (!image.naturalWidth) bad.push("image " + image.outerHTML);
  for (const one of document.querySelectorAll("[data-color]")) {
    if (getComputedStyle(one).color !== one.dataset.color) bad.push("style of " + one.outerHTML + " " + getComputedStyle(one).color);
  }
  for (const frame of document.querySelectorAll("iframe,object")) {
    const inside = frame.contentDocument;
    if (!inside || /not here/.test(inside.documentElement.textContent)) bad.push("frame " + frame.outerHTML);
    else for (const image of inside.images ?? []) if (!image.naturalWidth) bad.push("framed image " + image.outerHTML);
  }
  for (const one of await Promise.allSettled(waits)) if (one.status === "rejected") bad.push(String(one.reason));
  document.title = bad.length ? "bad: " + bad.join(" | ") : "fine";
});
</script>`;

const page = (body, head = "") => `<!doctype html><html><head><meta charset=utf-8><link rel=icon href=data:,><title>?</title>${head}</head><body>${body}${CHECK}`;

const wait = (code) => `<script>globalThis.waits ??= []; waits.push((async () => { ${code} })());</script>`;
const expects = (what) => `const text = await (await fetch(${what})).text(); if (!text.startsWith("data")) throw new Error(${JSON.stringify(what)} + " gave " + text.slice(0, 40));`;

const PAGES = {
  quotes: page(`<img src=/a.svg><img src='/a.svg'><img src = "/a.svg" ><IMG SRC=/a.svg alt=x/><img src="&#47;a.svg"><img src="/a.svg?x=1&amp;y=2&copy=3">
    <img src="
    /a.svg	"><img src="/a%20b.svg"><img src="\\a.svg"><img alt="a > b" src=/a.svg><img src=/a.svg src=/missing.svg>`),
  broken: page(`<p <b><table><a href=/x><tr><td><img src=/a.svg></a></table></p></nothing></ ><!-- -- ><img src=/missing.svg> --><img src=/a.svg
    <img src=/a.svg><b><i>x</b>y</i><![CDATA[<img src=/missing.svg>]]><?php echo "<br>" ?><img src=/a.svg>`),
  cut: `${page('<img src="/a.svg">')}<a href="/x`,
  base: page('<img src="pic.svg"><img src="/a.svg"><img src="../dir/pic.svg">', '<base href="/deep/dir/"><base href="/nowhere/">'),
  frames: page(`<iframe src=/framed></iframe><iframe srcdoc="<img src='/a.svg'><p>in srcdoc"></iframe><iframe srcdoc='&lt;img src=&quot;/a.svg&quot;&gt;'></iframe>
    <object data=/a.svg type=image/svg+xml></object><embed src=/a.svg type=image/svg+xml>`),
  svg: page(`<svg width=20 height=20><image href="/a.svg" width=8 height=8 /><image xlink:href="/a.svg" width=8 height=8 /><use href="/a.svg#s"/><use xlink:href="/a.svg#s"/>
    <a href="/x"><text>link</text></a><style>text { color: rgb(1, 2, 3) }</style><title><img src=/a.svg></title></svg><span data-color="rgb(0, 0, 0)">x</span><img src=/a.svg>`),
  css: page(`<p class=one data-color="rgb(1, 2, 3)">x</p><p class=two data-color="rgb(4, 5, 6)">x</p><p style="background:url(&quot;/a.svg&quot;), url('/a.svg')">x</p>
    <style>@import "/two.css"; .three { background: url( /a.svg ) } .four { background: u\\72l(/a.svg); background: image-set("/a.svg" 1x, url(/a.svg) 2x) } /* url(/missing.svg) */</style>
    <p class=three>x</p><p class=four>x</p>`, "<link rel=stylesheet href=/one.css>"),
  sets: page(`<img srcset="/a.svg 1x, /a.svg?2 2x"><img srcset="/a.svg"><picture><source srcset="/a.svg 100w,/a.svg?b 200w" sizes=100px><img src=/a.svg></picture>
    <video poster=/a.svg preload=none></video><input type=image src=/a.svg><table background=/a.svg><tr><td background=/a.svg></table>`),
  text: page(`<textarea id=t><a href="/x">&amp;</textarea><script id=s type=text/plain><a href="/x"></script><!-- <a href="/x"> --><xmp id=x><a href="/x"></xmp>
    <noscript><img src=/missing.svg></noscript><template><img src=/a.svg></template>${wait(`
      for (const id of ["t", "s", "x"]) {
        const text = document.getElementById(id).textContent;
        if (!text.includes('<a href="/x">')) throw new Error(id + " has " + text);
      }`)}`),
  refresh: '<!doctype html><link rel=icon href=data:,><meta http-equiv=refresh content="0;url=/quotes">',
  made: page(wait(`
    document.body.insertAdjacentHTML("beforeend", '<img src="/a.svg?inserted">');
    const holder = document.createElement("div");
    holder.innerHTML = '<img src="/a.svg?inner"><a href="/x" style="background: url(/a.svg)">x</a>';
    document.body.append(holder);
    document.body.append(Object.assign(new Image(), { src: "/a.svg?property" }));
    const template = document.createElement("template");
    template.innerHTML = '<img src="/a.svg?template">';
    document.body.append(template.content.cloneNode(true));
    const parsed = new DOMParser().parseFromString('<img src="/a.svg?parsed">', "text/html");
    document.body.append(document.adoptNode(parsed.body.firstChild));
    ${expects('"/data"')}`) + '<script>document.write("<img src=/a.svg?written><p id=w>w");</script>'),
  frame_made: page(`<iframe id=f></iframe>${wait(`
    const inside = document.getElementById("f").contentDocument;
    inside.open(); inside.write('<img src="/a.svg?in-frame">'); inside.close();`)}`),
  worker: page(wait(`
    const heard = (worker) => new Promise((done, refuse) => {
      (worker.port ?? worker).onmessage = (event) => event.data.startsWith("data") ? done() : refuse(new Error(event.data));
      worker.onerror = (event) => refuse(new Error(event.message ?? "a worker failed"));
    });
    await heard(new Worker("/worker.js"));
    await heard(new Worker("/worker.js", { type: "module" }));
    await heard(new SharedWorker("/shared.js"));`)),
  blob: page(wait(`
    const text = "fetch('" + location.origin + "/data').then((r) => r.text()).then(postMessage, (e) => postMessage(String(e)))";
    const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    await new Promise((done, refuse) => { worker.onmessage = (event) => event.data.startsWith("data") ? done() : refuse(new Error("blob worker: " + event.data)); });`)),
  modules: page(`<script type=module>
    import { value } from "/module.js";
    import "./module.js?relative";
    const later = await import("/module.js?later");
    const made = new URL("/data", import.meta.url).href;
    globalThis.judged((async () => { if (value !== 7 || later.value !== 7) throw new Error("module"); ${expects('"/data"')} })());
    globalThis.made = made;
    </script><script>(globalThis.waits ??= []).push(new Promise((done) => { globalThis.judged = done; }));</script>`),
  imports: page('<script>globalThis.waits ??= [];</script><script type=module>import { value } from "named"; if (value !== 7) waits.push(Promise.reject(new Error("named")));</script>',
    '<script type=importmap>{"imports": {"named": "/module.js", "lib/": "/lib/"}}</script>'),
  forms: page(`<form action=/data method=post><button formaction=/data formmethod=get>x</button></form><form><input name=action value=x><input name=a></form>${wait(`
    const form = document.forms[0];
    form.target = "f";
    const frame = document.createElement("iframe");
    frame.name = "f";
    document.body.append(frame);
    await new Promise((done) => { frame.onload = () => frame.contentWindow.location.href !== "about:blank" && done(); form.submit(); });
    if (!frame.contentDocument.body.textContent.startsWith("data")) throw new Error("form: " + frame.contentDocument.body.textContent);`)}`),
  strict: page('<p class=one data-color="rgb(1, 2, 3)">x</p><img src=/a.svg><script src=/strict.js></script>', "<link rel=stylesheet href=/one.css>").replaceAll("<script>", '<script nonce="abc">'),
  xhtml: `<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>?</title><link rel="icon" href="data:,"/><link rel="stylesheet" href="/one.css"/></head><body><p class="one" data-color="rgb(1, 2, 3)">x</p><img src="/a.svg"/><script>//<![CDATA[
${CHECK.replace(/<\/?script>/g, "")}
//]]></script></body></html>`,
  latin: page('<a id=l href="/caf\u00e9">caf\u00e9</a><img src=/a.svg>').replace("utf-8", "iso-8859-1"),
  utf16: page("<img src=/a.svg><p>\u4e2d\u6587</p>").replace("<meta charset=utf-8>", ""),
  large: page(`${'<p>words and <a href="/x">links</a> </p>\n'.repeat(40_000)}<img src=/a.svg>`),
  gzip: page("<img src=/a.svg>"),
  br: page("<img src=/a.svg>"),
  deflate: page("<img src=/a.svg>"),
  typeless: page("<img src=/a.svg>"),
};

const FILES = {
  "/a.svg": ["image/svg+xml", SVG],
  "/a b.svg": ["image/svg+xml", SVG],
  "/deep/dir/pic.svg": ["image/svg+xml", SVG],
  "/framed": ["text/html", '<link rel=icon href=data:,><img src="/a.svg"><p>framed'],
  "/one.css": ["text/css", '@import url("/two.css"); .one { color: rgb(1, 2, 3); background: url(/a.svg) }'],
  "/two.css": ["text/css", ".two { color: rgb(4, 5, 6) }"],
  "/data": ["text/plain", "data"],
  "/worker.js": ["text/javascript", 'fetch("/data").then((r) => r.text()).then(postMessage, (e) => postMessage(String(e)));'],
  "/shared.js": ["text/javascript", 'onconnect = (event) => fetch("/data").then((r) => r.text()).then((t) => event.ports[0].postMessage(t));'],
  "/module.js": ["text/javascript", "export const value = 7;"],
  "/strict.js": ["text/javascript", `(globalThis.waits ??= []).push((async () => { ${expects('"/data"')} document.body.append(Object.assign(new Image(), { src: "/a.svg?made" })); })());`],
};

const PACKED = { gzip: gzipSync, br: brotliCompressSync, deflate: deflateSync };

function answer(request, response) {
  const path = decodeURIComponent(request.url.split("?")[0]);
  const name = path.slice(1);
  if (path === "/") return response.writeHead(200, { "Content-Type": "text/html" }).end("<link rel=icon href=data:,><title>fine</title><p>nasty");
  if (FILES[path]) return response.writeHead(200, { "Content-Type": FILES[path][0] }).end(FILES[path][1]);
  if (!PAGES[name]) return response.writeHead(404, { "Content-Type": "text/html" }).end("not here");
  const headers = { "Content-Type": "text/html; charset=utf-8" };
  let body = Buffer.from(PAGES[name]);
  if (name === "xhtml") headers["Content-Type"] = "application/xhtml+xml";
  if (name === "strict") headers["Content-Security-Policy"] = "default-src 'none'; script-src 'nonce-abc' 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'";
  if (name === "latin") [headers["Content-Type"], body] = ["text/html", Buffer.from(PAGES[name], "latin1")];
  if (name === "utf16") [headers["Content-Type"], body] = ["text/html", Buffer.from(`\ufeff${PAGES[name]}`, "utf16le")];
  if (name === "typeless") delete headers["Content-Type"];
  if (PACKED[name] && new RegExp(`\\b${name}\\b`).test(request.headers["accept-encoding"] ?? "")) {
    headers["Content-Encoding"] = name;
    body = PACKED[name](body);
  }
  response.writeHead(200, headers).end(body);
}

export const nasty = {
  name: "nasty HTML",
  async begin(place) {
    const server = createServer(answer);
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    place.onEnd(() => { server.closeAllConnections(); server.close(); });
    return { port: server.address().port };
  },
  async use(page) {
    const address = page.url();
    const bad = [];
    for (const name of Object.keys(PAGES)) {
      await page.goto(new URL(name, address).href);
      await page.waitForFunction(() => !["?", ""].includes(document.title)).catch(() => {});
      const said = await page.title();
      if (said !== "fine") bad.push(`${name}: ${said || "nothing was said"}`);
    }
    await page.goto(address);
    same(bad.join("\n"), "", "what did not work");
  },
};
