// The pages that people see: what they say, where they lead, how they look and how the keyboard moves through them.

import { createServer } from "node:net";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { end, freePort, listening, start, until } from "./children.mjs";
import { Skip } from "./report.mjs";
import { World, contains, same, suite } from "./world.mjs";

const names = {
  workspace: "pages: the workspace lists forwards and listening ports, with links that work",
  empty: "pages: an empty workspace says how to begin",
  field: "pages: the field opens an address, a port and a forward, and says when it can't",
  keyboard: "pages: the keyboard reaches everything, and the focus is seen",
  contrast: "pages: every text has enough contrast, light and dark",
  denied: "pages: somebody else's application is denied, and hears nothing of it",
  privileged: "pages: a port below 1024 is denied",
  missing: "pages: nothing here, no such forward, no such machine",
  disabled: "pages: a disabled forward is gone",
  walk: "pages: the directories of an application can be walked",
  tooMany: "pages: too many requests at once",
  scriptless: "pages: the waiting page opens the application without scripts, too",
  waiting: "pages: the waiting page opens the application when it comes up",
  brokeOff: "pages: an application that breaks off",
};

export const run = (browser, report) => suite(browser, report, names, async (world, { test, visit }) => {

  await visit(names.empty, async (visitor) => {
    contains(await visitor.page.innerText("main"), "portreeve forward add", "the workspace");
    await visitor.pictures("workspace-empty");
  });

  const port = await freePort();
  const files = await world.fileServer(port);
  await world.forward("my-files", `localhost:${port}`);
  await world.forward("off", "localhost:1024");
  await world.command("forward", "disable", "off");
  writeFileSync(join(world.state, "forwards", "piled-up"), `http://localhost:1024/\nhttp://localhost:${port}/\n`, { mode: 0o700 });
  writeFileSync(join(world.state, "forwards", "broken"), "gopher://nowhere\n", { mode: 0o700 });

  await visit(names.workspace, async (visitor) => {
    const { page } = visitor;
    await visitor.pictures("workspace");
    const forwards = page.locator("section", { hasText: "Your forwards" });
    for (const [name, said] of [["my-files", `localhost:${port}`], ["off", "disabled"], ["piled-up", "the last one counts"], ["broken", "can't be used"]]) {
      contains(await forwards.locator("tr", { hasText: name }).innerText(), said, `the row of ${name}`);
    }
    const ports = page.locator("section", { hasText: "Your listening ports" });
    const row = ports.locator("tr", { hasText: `localhost:${port}` });
    contains(await row.innerText(), "python3", "the row of the port");
    contains(await row.innerText(), "this machine only", "the row of the port");
    same(await ports.locator("tr", { hasText: `:${world.port}` }).count(), 0, "rows of the portal itself");
    for (const [link, address] of [
      [forwards.getByRole("link", { name: "my-files", exact: true }), `${world.url}/fw/my-files/`],
      [row.getByRole("link", { name: `localhost:${port}`, exact: true }), `${world.url}/fw2/localhost:${port}/`],
      [row.getByRole("link", { name: /own address/ }), `${world.own(`localhost-${port}`)}/`],
      [forwards.locator("tr", { hasText: "my-files" }).getByRole("link", { name: /own address/ }), `${world.own("my-files.fn")}/`],
    ]) {
      await link.click();
      await page.waitForURL(address);
      same(await page.innerText("p"), "Here I am.", `the page at ${address}`);
      await page.goto(`${world.url}/`);
    }
    visitor.expectOnly(world.url, world.own(`localhost-${port}`), world.own("my-files.fn"));
  });

  await visit(names.field, async (visitor) => {
    const { page } = visitor;
    for (const [typed, address] of [
      [`localhost:${port}`, `/fw2/localhost:${port}/`],
      [` http://localhost:${port}/index.html?q `, `/fw2/localhost:${port}/index.html?q`],
      [String(port), `/fw2/localhost:${port}/`],
      ["my-files", "/fw/my-files/"],
    ]) {
      await page.goto(`${world.url}/`);
      await page.getByRole("textbox").fill(typed);
      await page.getByRole("button", { name: "Open" }).click();
      await page.waitForURL(world.url + address);
      same(await page.innerText("p"), "Here I am.", `the page for ${typed}`);
    }
    await page.goto(`${world.url}/`);
    await page.getByRole("textbox").fill("what is this?");
    await page.keyboard.press("Enter");
    await page.waitForLoadState();
    await page.waitForURL(`${world.url}/?*`);
    contains(await page.innerText("main"), "what is this?", "the page after something that is no address");
    await visitor.pictures("workspace-unknown-address");
  });

  await visit(names.walk, async (visitor) => {
    for (const prefix of [`/fw2/localhost:${port}`, "/fw/my-files"]) {
      // Without its slash: the application redirects to the address with it.
      await visitor.open(`${prefix}/walk`);
      same(visitor.page.url(), `${world.url}${prefix}/walk/`, "the directory's address");
      await visitor.page.getByRole("link", { name: "file one.txt" }).click();
      await visitor.page.waitForURL(`${world.url}${prefix}/walk/file%20one.txt`);
      same(await visitor.page.innerText("body"), "text of file one", "the file");
      // Nor is the application's own address complete without it.
      await visitor.open(prefix);
      same(visitor.page.url(), `${world.url}${prefix}/`, "the application's address");
    }
  }, { known: [/404: GET .*favicon\.ico/] }); // Python's listings name no icon: the browser asks for one at the root.

  /** A test of every kind of page that there is without an application. */
  const each = (name, run) => test(name, async () => {
    const [visitor, stranger, lost] = [await world.visitor(), await world.stranger(), await world.visitor()];
    await stranger.open("/");
    await lost.open("/nothing-here");
    for (const [what, one] of [["workspace", visitor], ["sign-in", stranger], ["not found", lost]]) {
      await run(what, one.page);
      one.expectClean();
      await one.end();
    }
  });

  await each(names.keyboard, async (what, page) => {
    const wanted = await page.evaluate(() => {
      const all = [...document.querySelectorAll("a[href], button, input:not([type=hidden])")];
      all.forEach((element, n) => (element.dataset.n = n));
      return all.length;
    });
    await page.evaluate(() => document.activeElement?.blur());
    const order = [];
    for (let n = 0; n < wanted; n += 1) {
      await page.keyboard.press("Tab");
      const [at, name, seen] = await page.evaluate(() => {
        const element = document.activeElement;
        const style = getComputedStyle(element);
        const box = element.getBoundingClientRect();
        const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
        return [element.dataset.n, element.innerText || element.name, outlined && box.width > 0 && box.left >= 0];
      });
      order.push(at);
      if (!seen) throw new Error(`${what}: the focus on ${name} is not seen`);
    }
    same(order.join(), [...Array(wanted).keys()].join(), `${what}: the order of focus`);
  });

  await each(names.contrast, async (what, page) => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      const weak = await page.evaluate(tooWeak);
      if (weak.length > 0) throw new Error(`${what}, ${colorScheme}: ${weak.join("; ")}`);
    }
  });

  await test(names.denied, async () => {
    if (process.getuid() !== 0) throw new Skip("needs root, to run an application as somebody else");
    const heard = join(world.dir, "heard");
    const theirs = await freePort();
    const script = "import socket,sys\ns=socket.socket();s.bind(('127.0.0.1',int(sys.argv[1])));s.listen()\n"
      + "while True:\n c=s.accept()[0]; print(c.recv(9), flush=True); c.close()";
    const child = start("python3", ["-c", script, String(theirs)], { uid: 1, gid: 1, cwd: "/", stdout: heard });
    await listening(theirs);
    const visitor = await world.visitor();
    same(await visitor.open(`/fw2/localhost:${theirs}/`), 403, "the status");
    same(await visitor.page.innerText("h1"), "You may not open this application", "the page");
    contains(await visitor.page.innerText("main"), "another user", "whose it is");
    contains(await visitor.page.innerText("main"), "Ask its owner", "what to do");
    contains(await visitor.page.innerText("footer"), "Request ", "the request's number");
    const id = /Request (\S+)/.exec(await visitor.page.innerText("footer"))[1];
    contains(world.logTail(100), id, "the log");
    await visitor.pictures("denied");
    visitor.expectClean();
    await visitor.end();
    await end(child);
    // Its own start-up check above connected too, and sent nothing.
    same(readFileSync(heard, "utf8").replaceAll("b''\n", ""), "", "what the application heard");
  });

  await visit(names.privileged, async (visitor) => {
    same(await visitor.open("/fw2/localhost:80/"), 403, "the status");
    contains(await visitor.page.innerText("main"), "1024", "the page");
  });

  await visit(names.missing, async (visitor) => {
    for (const [address, title] of [
      ["/nothing-here", "There is nothing here"],
      ["/fw/never-made/", "There is no forward of this name"],
      ["/fw2/elsewhere:8888/", "This machine is not known here"],
      ["/fw2/localhost:99999/", "No application can have this address"],
    ]) {
      same(await visitor.open(address), 404, `the status of ${address}`);
      same(await visitor.page.innerText("h1"), title, `the page at ${address}`);
      await visitor.pictures(`not-found-${title.split(" ")[0].toLowerCase()}-${title.split(" ").at(-1).toLowerCase()}`);
    }
    await visitor.page.getByRole("link", { name: "workspace" }).click();
    await visitor.page.waitForURL(`${world.url}/`);
  });

  await visit(names.disabled, async (visitor) => {
    same(await visitor.open("/fw/off/"), 410, "the status");
    same(await visitor.page.innerText("h1"), "This forward is disabled", "the page");
    await visitor.pictures("disabled");
  });

  await visit(names.waiting, async (visitor) => {
    const late = await freePort();
    const address = `/fw2/localhost:${late}/index.html?kept#part`;
    same(await visitor.open(address), 503, "the status");
    same(await visitor.page.innerText("h1"), "The application does not answer yet", "the page");
    await visitor.pictures("waiting");
    // Long enough that the page has asked in vain.
    await until("the page asks again", () => visitor.requests.filter((url) => url.includes(`:${late}/`)).length >= 3);
    const child = await world.fileServer(late);
    await visitor.page.waitForFunction(() => document.title === "Shown");
    same(visitor.page.url(), world.url + address, "the address");
    await end(child);
  }, { known: [/^503: HEAD /] });

  await visit(names.scriptless, async (visitor) => {
    const late = await freePort();
    same(await visitor.open(`/fw2/localhost:${late}/`), 503, "the status");
    const child = await world.fileServer(late);
    await visitor.page.getByText("Here I am.").waitFor();
    await end(child);
  }, { browser: { javaScriptEnabled: false } });

  await test(names.tooMany, async () => {
    const narrow = await World.begin(world.browser, "[limits]\nrequests_per_session = 1\n");
    const held = createServer(() => {});
    await new Promise((done) => held.listen(0, "127.0.0.1", done));
    const visitor = await narrow.visitor();
    const address = `/fw2/localhost:${held.address().port}/`;
    await visitor.page.evaluate((at) => void fetch(at).catch(() => {}), address);
    await until("the first request is on its way", () => narrow.logTail(50).includes(`what=${address.slice(0, -1)}`));
    const second = await visitor.context.newPage();
    same((await second.goto(`${narrow.url}${address}?second`)).status(), 429, "the status");
    same(await second.innerText("h1"), "Too many requests at once", "the page");
    // The workspace is no application, and still answers.
    same((await second.goto(`${narrow.url}/`)).status(), 200, "the status of the workspace");
    await visitor.end();
    held.close();
    await narrow.end();
  });

  await visit(names.brokeOff, async (visitor) => {
    const rude = createServer((socket) => socket.once("data", () => socket.destroy()));
    await new Promise((done) => rude.listen(0, "127.0.0.1", done));
    same(await visitor.open(`/fw2/localhost:${rude.address().port}/`), 502, "the status");
    same(await visitor.page.innerText("h1"), "The application broke off", "the page");
    await visitor.pictures("broke-off");
    rude.close();
  });

  await end(files);
});

/** In the page: texts whose contrast is below 4.5 (WCAG 2.2, 1.4.3). */
function tooWeak() {
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = numbers(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!text || ["STYLE", "SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push(`${text.slice(0, 30)} ${ratio.toFixed(1)}`);
  }
  for (const input of document.querySelectorAll("input[placeholder]")) {
    const [a, b] = [light(numbers(getComputedStyle(input, "::placeholder").color)), light(behind(input))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push(`placeholder ${input.placeholder} ${ratio.toFixed(1)}`);
  }
  return weak;
}
