// Maps the URLs that an application's scripts make, when it believes to be at the root of its origin but appears below
// a prefix. Loaded before all its scripts; put before the text of its workers' scripts.
// It throws nothing into the application: what can't be mapped goes through as it is.
(function (global) {
  "use strict";
  var doc = global.document, script = doc && doc.currentScript;
  var given = global.__portreeve || (script && script.dataset) || {}, place = given.at || global.location;
  var prefix = given.prefix, base = given.base || "";
  var origins = [].concat(given.origins || []).join(" ").split(" ");
  var done = "__portreeve_done";
  if (!prefix || global[done] || !global.Proxy || !global.URL) return;
  Object.defineProperty(global, done, { value: true });

  function below(path, head) { return path === head || path.indexOf(head + "/") === 0; }

  // A reference, as a string or URL, as it must read; anything else as it is.
  function map(value) {
    try {
      if (typeof value !== "string" && !(value instanceof URL)) return value;
      var text = String(value), at = /^[\0- ]*(?:([\\/]+)|(https?|wss?):)/i.exec(text);
      if (!at) return value;
      var url = new URL(text, doc ? doc.baseURI : place.href);
      var socket = /^ws/.test(url.protocol), secure = /s:$/.test(url.protocol);
      var own = url.host === place.host;
      if (!/^(http|ws)s?:$/.test(url.protocol) || url.username) return value;
      if (!own && origins.indexOf(url.hostname + ":" + (url.port || (secure && at[2] ? 443 : 80))) < 0) return value;
      var path = url.pathname;
      if (below(path, prefix)) { if (own) return value; }
      else path = prefix + (base && below(path, base) ? path.slice(base.length) || "/" : path);
      path += url.search + url.hash;
      if (at[1] && at[1].length === 1) return path;
      return (socket ? place.protocol.replace("http", "ws") : place.protocol) + "//" + place.host + path;
    } catch (e) { return value; }
  }

  function list(text) { return text.replace(/[^\s]+/g, function (url) { return map(url); }); }
  function srcset(text) { return text.replace(/(^\s*|,\s+|\d[wx],)([^\s,]\S*?)(?=,*(\s|$))/g, function (all, head, url) { return head + map(url); }); }
  function css(text) {
    return text.replace(/(url\(\s*["']?|@import\s+["'])([^"')\s]+)/gi, function (all, head, url) { return head + map(url); });
  }

  // Wraps a function or constructor. The proxy keeps its name, its length, its prototype and its static members.
  function proxy(native, change, after) {
    function changed(args, self) { try { change(args, self); } catch (e) { /* as they were */ } return args; }
    return new Proxy(native, {
      apply: function (f, self, args) {
        var result = Reflect.apply(f, self, changed(args, self));
        if (after) try { after(result); } catch (e) { /* never mind */ }
        return result;
      },
      construct: function (f, args, target) { return Reflect.construct(f, changed(args), target); }
    });
  }
  function wrap(owner, name, change, after) {
    try {
      var is;
      while (owner && !(is = Object.getOwnPropertyDescriptor(owner, name))) owner = Object.getPrototypeOf(owner);
      if (!is || typeof is.value !== "function") return;
      var native = is.value;
      is.value = proxy(native, change, after);
      Object.defineProperty(owner, name, is);
      // `socket.constructor === WebSocket`
      if (native.prototype && native.prototype.constructor === native)
        Object.defineProperty(native.prototype, "constructor", { value: is.value, writable: true, configurable: true });
    } catch (e) { /* stays as it is */ }
  }
  function argument(at) { return function (args) { if (args.length > at) args[at] = map(args[at]); }; }
  function proto(name) { return global[name] && global[name].prototype; }
  function setter(owner, name, change, read) {
    try {
      var is = Object.getOwnPropertyDescriptor(owner, name), get = is.get;
      is.set = proxy(is.set, function (args, self) { if (typeof args[0] === "string" || args[0] instanceof URL) args[0] = change(String(args[0]), self); });
      if (read) is.get = function () { return read(get.call(this)); };
      Object.defineProperty(owner, name, is);
    } catch (e) { /* this browser has none */ }
  }

  // A worker whose script was made of text has no address below the prefix: ours goes before that text.
  var blobs = {}, made;
  if (script) {
    wrap(URL, "createObjectURL", function (args) { made = args[0]; }, function (url) { if (made instanceof Blob) blobs[url] = made; });
    wrap(URL, "revokeObjectURL", function (args) { delete blobs[args[0]]; });
  }
  ["Worker", "SharedWorker"].forEach(function (name) {
    wrap(global, name, function (args) {
      var blob = blobs[args[0]];
      args[0] = map(args[0]);
      if (!blob || args[1] && args[1].type === "module") return;
      var at = { prefix: prefix, base: base, origins: origins, at: { href: place.href, host: place.host, protocol: place.protocol } };
      args[0] = URL.createObjectURL(new Blob(["self.__portreeve=" + JSON.stringify(at) + ";try{importScripts('" + script.src + "')}catch(e){}\n", blob]));
    });
  });
  ["fetch", "Request", "WebSocket", "EventSource", "Audio", "open"].forEach(function (name) { wrap(global, name, argument(0)); });
  wrap(global, "importScripts", function (args) { args.forEach(function (url, at) { args[at] = map(url); }); });
  wrap(proto("XMLHttpRequest"), "open", argument(1));
  wrap(proto("Navigator"), "sendBeacon", argument(0));
  wrap(proto("History"), "pushState", argument(2));
  wrap(proto("History"), "replaceState", argument(2));
  wrap(proto("Clients"), "openWindow", argument(0));
  wrap(proto("ServiceWorkerContainer"), "register", function (args) {
    args[0] = map(args[0]);
    if (args[1] && args[1].scope) args[1] = Object.assign({}, args[1], { scope: map(args[1].scope) });
  });
  wrap(proto("Cache"), "addAll", function (args) { args[0] = Array.from(args[0], map); });
  ["add", "put", "match", "matchAll", "delete", "keys"].forEach(function (name) { wrap(proto("Cache"), name, argument(0)); });
  wrap(proto("CacheStorage"), "match", argument(0));

  // Cookies stay below the prefix, and `__Host-` ones, which can't, go by another name: as in the fields of answers.
  function path(value) { return below(value, prefix) ? value : prefix + (value[0] === "/" && value.indexOf("..") < 0 ? value : "/"); }
  function cookie(text) {
    return text.replace(/^(\s*)__((Host-|Secure-(Host-|Secure-)))/i, "$1__Secure-$2")
      .replace(/;\s*domain\s*=[^;]*/gi, "")
      .replace(/(;\s*path\s*=\s*)([^;]*)/gi, function (all, head, value) { return head + path(value.trim()); });
  }
  setter(proto("Document"), "cookie", cookie, function (text) { return text.replace(/(^|; )__Secure-(?=Host-|Secure-)/g, "$1__"); });
  wrap(proto("CookieStore"), "set", function (args) {
    if (typeof args[0] === "object") args[0] = Object.assign({}, args[0], { path: path(args[0].path || "/"), domain: null });
    else if (args.length > 1) args.splice(0, 2, { name: args[0], value: args[1], path: prefix + "/" });
  });
  ["insertRule", "replace", "replaceSync"].forEach(function (name) {
    wrap(proto("CSSStyleSheet"), name, function (args) { args[0] = css(String(args[0])); });
  });
  if (!doc) return;

  // What `location = "/x"` asks for, where the browser tells before it goes.
  if (global.navigation) try {
    global.navigation.addEventListener("navigate", function (event) {
      var url = event.destination.url, to = map(url);
      if (to === url || !event.cancelable || event.formData || event.downloadRequest || !/^(push|replace)$/.test(event.navigationType)) return;
      event.preventDefault();
      global.navigation.navigate(to, { history: event.navigationType });
    });
  } catch (e) { /* not this browser */ }

  // Attributes: which of which elements.
  var where = {
    href: "a area link base", src: "img script iframe frame embed input source track audio video", action: "form",
    formaction: "button input", poster: "video", data: "object", srcset: "img source", imagesrcset: "link", ping: "a area",
    background: "body table td th", "xlink:href": "", style: "*"
  };
  function mapped(element, name, value) {
    name = String(name).toLowerCase();
    var of = where[name], tag = element.localName;
    if (of === undefined || typeof value !== "string" || (element === script)) return value;
    if (name === "style") return css(value);
    if (/html$/.test(element.namespaceURI) ? (" " + of + " ").indexOf(" " + tag + " ") < 0 : !/href$/.test(name)) return value;
    return /srcset/.test(name) ? srcset(value) : name === "ping" ? list(value) : map(value);
  }
  [["setAttribute", 0], ["setAttributeNS", 1]].forEach(function (one) {
    var name = one[0], at = one[1], is = Object.getOwnPropertyDescriptor(proto("Element") || {}, name);
    if (!is) return;
    is.value = new Proxy(is.value, {
      apply: function (f, self, args) {
        try { if (args.length > at + 1) args[at + 1] = mapped(self, args[at], args[at + 1] instanceof URL ? String(args[at + 1]) : args[at + 1]); } catch (e) { /* as it was */ }
        return Reflect.apply(f, self, args);
      }
    });
    Object.defineProperty(proto("Element"), name, is);
  });
  ("Anchor.href Anchor.ping Area.href Area.ping Link.href Link.imageSrcset Base.href Image.src Image.srcset Script.src IFrame.src Frame.src Embed.src " +
   "Input.src Input.formAction Button.formAction Form.action Source.src Source.srcset Track.src Media.src Video.poster Object.data")
    .split(" ").forEach(function (one) {
      one = one.split(".");
      setter(proto("HTML" + one[0] + "Element"), one[1], /srcset$/i.test(one[1]) ? srcset : one[1] === "ping" ? list : map);
    });

  // What comes in as markup is mapped before it is there, where a template can read it, and else repaired.
  var names = Object.keys(where), all = names.map(function (name) { return "[" + name.replace(":", "\\:") + "]"; }) + ",style";
  function repair(element) {
    if (element.nodeType !== 1) return;
    names.forEach(function (name) {
      var was = element.getAttribute(name), now = was && mapped(element, name, was);
      if (was !== now) element.setAttribute(name, now);
    });
    if (element.localName === "style") {
      var text = element.textContent, now = css(text);
      if (text !== now) element.textContent = now;
    }
  }
  var html = Object.getOwnPropertyDescriptor(proto("Element") || {}, "innerHTML"), blank = html && doc.createElement("template");
  function markup(text, self) {
    if (!blank || !/[=(]\s*["']?\s*([\/\\]|https?:)/i.test(text) || /^(script|style|textarea|title|xmp)$/.test(self.localName)) return text;
    html.set.call(blank, text);
    var was = html.get.call(blank);
    blank.content.querySelectorAll(all).forEach(repair);
    var now = html.get.call(blank);
    return was === now ? text : now;
  }
  setter(proto("Element"), "innerHTML", markup);
  setter(proto("Element"), "outerHTML", markup);
  setter(proto("ShadowRoot"), "innerHTML", markup);
  wrap(proto("Element"), "insertAdjacentHTML", function (args, self) { if (typeof args[1] === "string") args[1] = markup(args[1], self); });
  // A document that is not shown loads nothing; its elements may go into one that is.
  wrap(proto("DOMParser"), "parseFromString", function () {}, function (parsed) { if (/html/.test(parsed.contentType)) parsed.querySelectorAll(all).forEach(repair); });
  // May be a part of a tag, or of a script: what looks like an attribute is one.
  ["write", "writeln"].forEach(function (name) {
    wrap(proto("Document"), name, function (args) {
      args.forEach(function (text, at) {
        if (typeof text === "string") args[at] = text.replace(/(\s(?:src|href|action|poster)\s*=\s*["']?)([^\s"'<>]+)/gi, function (whole, head, url) { return head + map(url); });
      });
    });
  });
  if (global.MutationObserver) try {
    var watch = { childList: true, subtree: true, attributes: true, attributeFilter: names };
    var observer = new MutationObserver(function (records) {
      records.forEach(function (record) {
        try {
          if (record.type === "attributes") return repair(record.target);
          record.addedNodes.forEach(function (node) {
            repair(node);
            if (node.querySelectorAll) node.querySelectorAll(all).forEach(repair);
          });
        } catch (e) { /* the next */ }
      });
    });
    observer.observe(doc, watch);
    wrap(proto("Element"), "attachShadow", function () {}, function (root) { observer.observe(root, watch); });
  } catch (e) { /* what can be observed is */ }
})(self);
