// Runs script/rewrite.js in a fake page and a fake worker. `node script.js` prints what fails, and exits with 1.
"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const source = fs.readFileSync(path.join(__dirname, "../script/rewrite.js"), "utf8");
const calls = [];
const note = (name) => function (...args) { calls.push([name, ...args]); return this; };
function last() { return calls[calls.length - 1]; }

function constructor(name) {
  const made = { [name]: class { constructor(...args) { calls.push([name, ...args]); } } }[name];
  made.OPEN = 1;
  return made;
}

function html(name, properties) {
  const made = { [name]: class {} }[name];
  for (const property of properties)
    Object.defineProperty(made.prototype, property, {
      configurable: true, enumerable: true,
      get() { return this["_" + property]; }, set(value) { this["_" + property] = value; },
    });
  return made;
}

function common(location) {
  const global = {
    location, URL, Proxy, Reflect, Object, Array, String, console, Symbol,
    fetch: note("fetch"), Request: constructor("Request"), WebSocket: constructor("WebSocket"),
    EventSource: constructor("EventSource"), Worker: constructor("Worker"), SharedWorker: constructor("SharedWorker"),
    XMLHttpRequest: class { open() { calls.push(["xhr", ...arguments]); } },
    Navigator: class { sendBeacon() { calls.push(["beacon", ...arguments]); } },
    Cache: class { addAll() { calls.push(["addAll", ...arguments]); } put() { calls.push(["put", ...arguments]); } },
  };
  global.self = global;
  return global;
}

function page(dataset, href = "https://portal/fw/tb/dir/page") {
  const location = new URL(href);
  const global = common(location);
  class Element {
    constructor(localName, attributes = {}) {
      Object.assign(this, { localName, attributes, nodeType: 1, namespaceURI: "http://www.w3.org/1999/xhtml", textContent: "" });
    }
    getAttribute(name) { return this.attributes[name] ?? null; }
    setAttribute(name, value) { this.attributes[name] = value; }
    setAttributeNS(ns, name, value) { this.attributes[name] = value; }
    attachShadow() { return { shadow: true }; }
    querySelectorAll() { return this.children || []; }
  }
  class Document {
    get cookie() { return this._cookie || ""; }
    set cookie(value) { this._cookie = value; }
  }
  const document = new Document();
  Object.assign(document, { currentScript: Object.assign(new Element("script"), { dataset }), baseURI: href });
  const observed = [];
  Object.assign(global, {
    document, Document, Element, observed, open: note("open"),
    History: class { pushState() { calls.push(["push", ...arguments]); } replaceState() { calls.push(["replace", ...arguments]); } },
    ServiceWorkerContainer: class { register() { calls.push(["register", ...arguments]); } },
    HTMLAnchorElement: html("HTMLAnchorElement", ["href", "ping"]),
    HTMLImageElement: html("HTMLImageElement", ["src", "srcset"]),
    HTMLScriptElement: html("HTMLScriptElement", ["src"]),
    HTMLFormElement: html("HTMLFormElement", ["action"]),
    HTMLObjectElement: html("HTMLObjectElement", ["data"]),
    CSSStyleSheet: class { insertRule() { calls.push(["rule", ...arguments]); } },
    MutationObserver: class {
      constructor(callback) { global.mutate = callback; }
      observe(node, options) { observed.push([node, options]); }
    },
    navigation: {
      addEventListener(kind, listener) { global.navigate = listener; },
      navigate: note("navigate"),
    },
  });
  global.window = global;
  return global;
}

function run(global, text = source) { vm.runInNewContext(text, global); return global; }

const dataset = { prefix: "/fw/tb", base: "", origins: "c1:12001 localhost:12001" };
const cases = {
  "what is mapped and what not"() {
    const w = run(page(dataset));
    for (const [from, to] of [
      ["/x", "/fw/tb/x"], ["/", "/fw/tb/"], ["/x?a=/b#/c", "/fw/tb/x?a=/b#/c"], [" /x", "/fw/tb/x"], ["\\x", "/fw/tb/x"],
      ["http://c1:12001/x", "https://portal/fw/tb/x"], ["//c1:12001/x", "//c1:12001/x"],
      ["https://portal/x", "https://portal/fw/tb/x"], ["//portal/x", "https://portal/fw/tb/x"],
      ["http://localhost:12001", "https://portal/fw/tb/"], ["http://c1:12001/fw/tb/x", "https://portal/fw/tb/x"],
      ["/../x", "/fw/tb/x"], ["/fw/tb2", "/fw/tb/fw/tb2"],
    ]) {
      w.fetch(from);
      if (from !== "//c1:12001/x") assert.equal(last()[1], to, from);
    }
    for (const same of ["", "x", "./x", "../x", "?q", "#f", "/fw/tb", "/fw/tb/x", "https://portal/fw/tb/x", "//evil/x", "/\\evil/x",
      "http://c1:12002/x", "http://u@c1:12001/x", "data:,/x", "blob:https://portal/x", "javascript:/x", "http://", "//", null, undefined, 7, {}]) {
      w.fetch(same);
      assert.equal(last()[1], same, String(same));
    }
    w.fetch(new URL("https://portal/x"));
    assert.equal(last()[1], "https://portal/fw/tb/x");
    assert.equal(run(page({ ...dataset, base: "/app" })).fetch("/app/x") && last()[1], "/fw/tb/x");
  },
  "functions and constructors"() {
    const w = run(page(dataset));
    new w.WebSocket("ws://c1:12001/ws"); assert.equal(last()[1], "wss://portal/fw/tb/ws");
    new w.WebSocket("wss://portal/ws", ["p"]); assert.deepEqual(last().slice(1), ["wss://portal/fw/tb/ws", ["p"]]);
    new w.WebSocket("wss://elsewhere/ws"); assert.equal(last()[1], "wss://elsewhere/ws");
    for (const name of ["EventSource", "Worker", "SharedWorker", "Request"]) { new w[name]("/x", 1); assert.deepEqual(last(), [name, "/fw/tb/x", 1]); }
    new w.XMLHttpRequest().open("GET", "/x", true); assert.deepEqual(last(), ["xhr", "GET", "/fw/tb/x", true]);
    new w.Navigator().sendBeacon("/x", "d"); assert.deepEqual(last(), ["beacon", "/fw/tb/x", "d"]);
    w.open("/x"); assert.equal(last()[1], "/fw/tb/x");
    w.open(); assert.equal(last().length, 1);
    new w.History().pushState(null, "", "/x"); assert.equal(last()[3], "/fw/tb/x");
    new w.History().pushState(null, ""); assert.equal(last().length, 3);
    new w.History().replaceState(null, "", null); assert.equal(last()[3], null);
    new w.ServiceWorkerContainer().register("/sw.js", { scope: "/", type: "module" });
    assert.equal(JSON.stringify(last()), '["register","/fw/tb/sw.js",{"scope":"/fw/tb/","type":"module"}]');
    new w.Cache().addAll(["/", "x"]); assert.deepEqual([...last()[1]], ["/fw/tb/", "x"]);
    new w.Cache().put("/x", 1); assert.deepEqual(last(), ["put", "/fw/tb/x", 1]);
  },
  "what was wrapped looks as before"() {
    const before = page(dataset), { WebSocket, fetch } = before, proto = WebSocket.prototype;
    const w = run(before);
    assert.equal(w.WebSocket.name, "WebSocket");
    assert.equal(w.WebSocket.OPEN, 1);
    assert.equal(w.WebSocket.prototype, proto);
    assert.equal(proto.constructor, w.WebSocket);
    const socket = new w.WebSocket("/x");
    assert.ok(socket instanceof w.WebSocket && socket instanceof WebSocket && socket.constructor === w.WebSocket);
    assert.ok(new (class extends w.WebSocket {})("/x") instanceof w.WebSocket);
    assert.equal(w.fetch.length, fetch.length);
    assert.match(Function.prototype.toString.call(w.fetch), /native code|function/);
    assert.deepEqual(Object.keys(w.XMLHttpRequest.prototype), []);
  },
  "once is enough, and without a prefix there is nothing to do"() {
    const w = run(run(page(dataset)));
    w.fetch("/x"); assert.equal(last()[1], "/fw/tb/x");
    const own = page({ prefix: "", base: "", origins: "" }), { fetch } = own;
    run(own);
    assert.equal(own.fetch, fetch);
    run(page({}));
  },
  "elements"() {
    const w = run(page(dataset));
    for (const [name, property, from, to] of [
      ["Anchor", "href", "/x", "/fw/tb/x"], ["Anchor", "ping", "/x /y", "/fw/tb/x /fw/tb/y"], ["Image", "src", "/x", "/fw/tb/x"],
      ["Image", "srcset", "/a 1x, b 2x,/c 3x", "/fw/tb/a 1x, b 2x,/fw/tb/c 3x"], ["Script", "src", "x", "x"], ["Form", "action", "/x", "/fw/tb/x"],
      ["Object", "data", "//evil", "//evil"],
    ]) {
      const element = new w["HTML" + name + "Element"]();
      element[property] = from;
      assert.equal(element[property], to, name + "." + property);
    }
    for (const [tag, name, from, to] of [
      ["a", "href", "/x", "/fw/tb/x"], ["A".toLowerCase(), "HREF", "/x", "/fw/tb/x"], ["div", "href", "/x", "/x"], ["x-y", "src", "/x", "/x"],
      ["div", "title", "/x", "/x"], ["img", "srcset", "/a, /b 2x", "/fw/tb/a, /fw/tb/b 2x"], ["div", "style", "a:url('/x')", "a:url('/fw/tb/x')"],
      ["object", "data", "/x", "/fw/tb/x"], ["img", "data", "/x", "/x"],
    ]) {
      const element = new w.Element(tag);
      element.setAttribute(name, from);
      assert.equal(element.attributes[name], to, tag + " " + name);
    }
    const use = new w.Element("use");
    use.namespaceURI = "http://www.w3.org/2000/svg";
    use.setAttributeNS("http://www.w3.org/1999/xlink", "xlink:href", "/x#a");
    assert.equal(use.attributes["xlink:href"], "/fw/tb/x#a");
    const odd = new w.Element("a");
    odd.setAttribute("href", 7); assert.equal(odd.attributes.href, 7);
    assert.equal(odd.setAttribute.length, 2);
  },
  "markup is repaired"() {
    const w = run(page(dataset));
    assert.equal(w.observed[0][0], w.document);
    const inner = new w.Element("img", { src: "/x", title: "/t" }), style = new w.Element("style");
    style.textContent = "a{b:url(/x)} c{d:url(//e)}";
    const outer = new w.Element("div");
    outer.children = [inner, style];
    w.mutate([{ type: "childList", addedNodes: [{ nodeType: 3 }, outer] }, { type: "attributes", target: new w.Element("a", { href: "x" }) }]);
    assert.deepEqual(inner.attributes, { src: "/fw/tb/x", title: "/t" });
    assert.equal(style.textContent, "a{b:url(/fw/tb/x)} c{d:url(//e)}");
    assert.equal(outer.attachShadow({ mode: "open" }).shadow, true);
    assert.equal(w.observed.length, 2);
    new w.CSSStyleSheet().insertRule("a{b:url(/x)}", 0);
    assert.deepEqual(last(), ["rule", "a{b:url(/fw/tb/x)}", 0]);
  },
  "cookies"() {
    const w = run(page(dataset));
    for (const [from, to] of [
      ["a=1", "a=1"], ["a=/x; path=/", "a=/x; path=/fw/tb/"], ["a=1; Path=/x; Secure", "a=1; Path=/fw/tb/x; Secure"],
      ["a=1; path=/fw/tb/y", "a=1; path=/fw/tb/y"], ["a=1; domain=portal; path=/../x", "a=1; path=/fw/tb/"],
      ["__Host-a=1; path=/; secure", "__Secure-Host-a=1; path=/fw/tb/; secure"], ["__Secure-b=1", "__Secure-b=1"],
    ]) {
      w.document.cookie = from;
      assert.equal(w.document._cookie, to);
    }
    w.document._cookie = "a=1; __Secure-Host-b=2; __Secure-Secure-Host-c=3; __Secure-d=4";
    assert.equal(w.document.cookie, "a=1; __Host-b=2; __Secure-Host-c=3; __Secure-d=4");
  },
  "where the page goes"() {
    const w = run(page(dataset));
    const go = (url, more) => {
      let stopped = false;
      w.navigate({ destination: { url }, cancelable: true, navigationType: "push", formData: null, downloadRequest: null, preventDefault() { stopped = true; }, ...more });
      return stopped;
    };
    assert.ok(go("https://portal/x"));
    assert.equal(JSON.stringify(last()), '["navigate","https://portal/fw/tb/x",{"history":"push"}]');
    for (const [url, more] of [["https://portal/fw/tb/x"], ["https://elsewhere/x"], ["https://portal/x", { cancelable: false }],
      ["https://portal/x", { formData: {} }], ["https://portal/x", { navigationType: "traverse" }]])
      assert.ok(!go(url, more), url);
  },
  "a worker has no document"() {
    const scope = Object.create({ fetch: note("fetch"), importScripts: note("import") });
    const own = common(new URL("https://portal/fw/tb/w.js"));
    delete own.fetch;
    Object.assign(scope, own, { self: scope });
    // Within a function: the context's own global object hides what it inherits.
    own.scope = scope;
    run(own, '(function (self) {self.__portreeve={"prefix":"/fw/tb","base":"","origins":["c1:12001"]};' + source + '})(scope)');
    scope.fetch("http://c1:12001/x"); assert.equal(last()[1], "https://portal/fw/tb/x");
    scope.importScripts("/a.js", "b.js"); assert.deepEqual(last().slice(1), ["/fw/tb/a.js", "b.js"]);
  },
  "nothing is thrown into the application"() {
    const w = page(dataset);
    for (const name of ["URL"]) w[name] = class { constructor() { throw new Error(name); } };
    run(w);
    w.fetch("/x"); assert.equal(last()[1], "/x");
    const bare = { location: new URL("https://portal/fw/tb/"), document: { currentScript: { dataset } }, Proxy, URL };
    bare.self = bare;
    run(bare);
    const empty = {}; empty.self = empty; run(empty);
  },
};

let failed = 0;
for (const [name, test] of Object.entries(cases)) {
  try { test(); } catch (error) { failed += 1; console.log(`${name}: ${error.stack}`); }
}
process.exit(failed ? 1 : 0);
