// Uploads on the page Files: chosen and dropped, refused, and while the connection breaks off or is away.

import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { until } from "./children.mjs";
import { listen, page_of, places } from "./files.mjs";
import { contains, same, suite } from "./world.mjs";

const names = {
  broken: "files: an upload goes on where its connection broke off, and replaces nothing unasked",
  refused: "files: what was refused stays said until it was read, and who asks too much waits",
  lost: "files: an upload whose last answer was lost, or whose file changed, is told of as it ended",
  away: "files: what is begun while the connection is away is begun when it is back",
  folder: "files: a folder that is chosen comes with all that is in it",
  drop: "files: files and folders that are dropped are there, with empty folders and what is deep in them",
};

/** Drags files and folders of this machine over the page, as from a window beside it; what is given lets go of them. */
async function drag({ page, context }, ...files) {
  const tools = await context.newCDPSession(page);
  const send = (type) => tools.send("Input.dispatchDragEvent", { type, x: 400, y: 300, data: { items: [], files, dragOperationsMask: 1 } });
  await send("dragEnter");
  await send("dragOver");
  return () => send("drop");
}

export const run = (browser, report) => suite(browser, report, Object.values(names), async (world, { visit }) => {
  const { home, work } = places(world);

  await visit(names.broken, async (visitor) => {
    const { page, context } = visitor, dir = work("broken");
    const content = Buffer.alloc(40_000_000, "0123456789");
    const file = join(home, "large.bin");
    writeFileSync(file, content);
    await visitor.open(page_of(dir));
    const tools = await context.newCDPSession(page);
    await tools.send("Network.enable");
    const speed = (offline, uploadThroughput) => tools.send("Network.emulateNetworkConditions", { offline, latency: 0, downloadThroughput: -1, uploadThroughput });
    await speed(false, 8_000_000);
    const loaded = page.waitForEvent("load", { timeout: 60_000 });
    await page.getByLabel("Upload files").setInputFiles(file);
    const value = () => page.locator("#uploads progress").evaluate((bar) => bar.value);
    await until("some of it is sent", async () => (await value()) > 4_000_000);
    await speed(true, 0);
    await page.locator("#uploads output", { hasText: "broke off" }).waitFor();
    same(existsSync(join(dir, "large.bin")), false, "nothing is there by half");
    await speed(false, -1);
    await loaded;
    same(readFileSync(join(dir, "large.bin")).equals(content), true, "all of it");
    // The same name again: the answer is no, then yes.
    writeFileSync(file, "short");
    let said = "";
    page.once("dialog", (dialog) => { said = dialog.message(); return dialog.dismiss(); });
    await page.getByLabel("Upload files").setInputFiles(file);
    await page.locator("#uploads output", { hasText: "left as it is" }).waitFor();
    contains(said, "Replace it?", "the question");
    same(statSync(join(dir, "large.bin")).size, content.length, "it was left");
    page.once("dialog", (dialog) => dialog.accept());
    const again = page.waitForEvent("load");
    await page.getByLabel("Upload files").setInputFiles(file);
    await again;
    same(readFileSync(join(dir, "large.bin"), "utf8"), "short", "and replaced");
    same(readdirSync(dir).length, 1, "nothing else is left");
  }, { known: [/net::ERR_/, /^4(09|12): /, /ERR_INTERNET_DISCONNECTED/] });

  await visit(names.refused, async (visitor) => {
    const { page } = visitor, dir = work("refused");
    mkdirSync(join(dir, "folder"));
    await visitor.open(page_of(dir));
    const heard = await listen(page);
    let asked = 0;
    await page.route("**/api/v1/uploads", (route) => {
      asked += 1;
      return asked === 1 ? route.fulfill({ status: 429, headers: { "retry-after": "2" }, json: { detail: "Too many at once." } }) : route.continue();
    });
    page.once("dialog", (dialog) => dialog.accept());
    const began = Date.now();
    await page.getByLabel("Upload files").setInputFiles(["busy", "folder", "fine"].map((name) => ({ name, mimeType: "text/plain", buffer: Buffer.from(name) })));
    const line = (name) => page.locator("#uploads li", { hasText: name }).locator("output");
    await line("busy").filter({ hasText: "Too many at once. It is tried again." }).waitFor();
    const anew = page.getByRole("button", { name: "Show the list anew" });
    await anew.waitFor();
    if (Date.now() - began < 2000) throw new Error("it did not wait for as long as it was told to");
    same(await line("busy").innerText(), "It is there.", "what waited");
    same(await line("folder").innerText(), "It is a directory.", "what can't be replaced");
    same(await line("fine").innerText(), "It is there.", "the one behind it");
    same(await page.getByRole("link", { name: "fine" }).count(), 0, "the list is as it was");
    await until("a screen reader says how it ended", async () => (await heard()).some((text) => text === "fine: It is there. 2 of 3 are there, 1 failed."));
    await anew.click();
    await page.getByRole("link", { name: "fine" }).waitFor();
    same(await page.locator("#uploads").isVisible(), false, "what was said is read");
    same(readdirSync(dir).join(), "busy,fine,folder", "what is there");
  }, { known: [/^4(04|09|12|29): /] });

  await visit(names.lost, async (visitor) => {
    const { page, context } = visitor, dir = work("lost"), content = Buffer.alloc(17_000_000, "0123456789");
    await visitor.open(page_of(dir));
    // The worker has the last part and answers; the answer does not arrive.
    const tools = await context.newCDPSession(page), asked = [];
    await tools.send("Fetch.enable", { patterns: [{ urlPattern: "*offset=*", requestStage: "Response" }] });
    tools.on("Fetch.requestPaused", ({ requestId, request, responseStatusCode }) => {
      asked.push(`${new URL(request.url).search} ${responseStatusCode}`);
      if (asked.length === 2) tools.send("Fetch.failRequest", { requestId, errorReason: "ConnectionReset" });
      else tools.send("Fetch.continueRequest", { requestId });
    });
    const loaded = page.waitForEvent("load", { timeout: 60_000 });
    await page.getByLabel("Upload files").setInputFiles({ name: "large.bin", mimeType: "text/plain", buffer: content });
    await page.locator("#uploads output", { hasText: "broke off" }).waitFor();
    await until("it is in its place all the same", () => existsSync(join(dir, "large.bin")));
    await loaded;
    same(asked.join(), "?offset=0 200,?offset=16777216 201,?offset=17000000 201", "what was sent");
    same(readFileSync(join(dir, "large.bin")).equals(content), true, "all of it");
    await page.getByRole("status").filter({ hasText: "1 of 1 is there." }).waitFor();
    await tools.send("Fetch.disable");
    const file = join(home, "changing");
    writeFileSync(file, "as it was chosen");
    utimesSync(file, 1e9, 1e9);
    await page.route("**/api/v1/uploads", (route) => { writeFileSync(file, "something else"); return route.continue(); });
    await page.getByLabel("Upload files").setInputFiles(file);
    await page.locator("#uploads output", { hasText: "changed or removed on this machine" }).waitFor();
    same(readdirSync(dir).join(), "large.bin", "nothing of it is there");
  }, { known: [/net::ERR_CONNECTION_RESET/, /ERR_UPLOAD_FILE_CHANGED/] });

  await visit(names.folder, async (visitor) => {
    const { page } = visitor, dir = work("folder");
    mkdirSync(join(home, "dropped/below/deep"), { recursive: true });
    writeFileSync(join(home, "dropped/one"), "1");
    writeFileSync(join(home, "dropped/below/deep/two"), "2");
    await visitor.open(page_of(dir));
    const loaded = page.waitForEvent("load");
    await page.getByLabel("Upload a folder").setInputFiles(join(home, "dropped"));
    await loaded;
    same(readFileSync(join(dir, "dropped/below/deep/two"), "utf8"), "2", "what is deep in it");
    same(readFileSync(join(dir, "dropped/one"), "utf8"), "1", "and not");
    await page.getByRole("link", { name: "dropped/" }).waitFor();
  });

  await visit(names.drop, async (visitor) => {
    const { page } = visitor, dir = work("drop"), from = join(home, "pulled");
    mkdirSync(join(from, "tree/sub/deep"), { recursive: true });
    mkdirSync(join(from, "tree/empty/emptier"), { recursive: true });
    mkdirSync(join(from, "bare"));
    // A reader of a folder gives a hundred names at once.
    for (let number = 0; number < 120; number += 1) writeFileSync(join(from, `tree/sub/n${number}`), `${number}`);
    for (const name of ["one ü.txt", "tree/two", "tree/sub/deep/three"]) writeFileSync(join(from, name), name);
    // It is there already, and there is no question about it.
    mkdirSync(join(dir, "tree"));
    await visitor.open(page_of(dir));
    const heard = await listen(page), drop = await drag(visitor, ...["one ü.txt", "tree", "bare"].map((name) => join(from, name)));
    await until("the page shows that it takes them", () => page.evaluate(() => document.body.classList.contains("drop")));
    const loaded = page.waitForEvent("load", { timeout: 60_000 });
    await drop();
    await page.locator("#uploads li", { hasText: "bare/" }).waitFor();
    same(await page.evaluate(() => document.body.classList.contains("drop")), false, "and that it took them");
    await until("a screen reader says what comes", async () => (await heard()).some((text) => text.includes("of 125 are there.")));
    await loaded;
    const tree = (of) => readdirSync(of, { recursive: true }).sort().map((name) => `${name} ${statSync(join(of, name)).isDirectory() ? "" : readFileSync(join(of, name), "utf8")}`).join("\n");
    same(tree(dir), tree(from), "what is there");
    await page.getByRole("status").filter({ hasText: "125 of 125 are there." }).waitFor();
    // Scripts put files together that have no entries.
    const transfer = await page.evaluateHandle(() => {
      const made = new DataTransfer();
      made.items.add(new File(["dropped"], "made by a script"));
      return made;
    });
    const again = page.waitForEvent("load");
    await page.dispatchEvent("main", "dragover", { dataTransfer: transfer });
    await page.dispatchEvent("main", "drop", { dataTransfer: transfer });
    await again;
    same(readFileSync(join(dir, "made by a script"), "utf8"), "dropped", "that one, too");
  }, { known: [/^412: PUT .*\/tree\/$/] });

  await visit(names.away, async (visitor) => {
    const { page, context } = visitor, dir = work("away"), from = join(home, "gone");
    mkdirSync(join(from, "folder"), { recursive: true });
    for (const name of ["first", "folder/second"]) writeFileSync(join(from, name), name);
    await visitor.open(page_of(dir));
    // Between the two the connection goes away: once before the folder is made, and once before the file is begun.
    const waits = page.locator("#uploads li", { hasText: "second" }).locator("output", { hasText: "goes on by itself" });
    const gone = [];
    const go = async (route) => {
      const what = `${route.request().method()} ${new URL(route.request().url()).pathname.split("/").at(-1)}`;
      const is_away = ["PUT ", "POST uploads"].includes(what) && existsSync(join(dir, "first")) && !gone.includes(what);
      if (is_away) {
        gone.push(what);
        await context.setOffline(true);
      }
      await route.continue();
    };
    await page.route(/\/api\/v1\/(files|uploads)/, go);
    const loaded = page.waitForEvent("load", { timeout: 60_000 });
    await (await drag(visitor, join(from, "first"), join(from, "folder")))();
    for (const what of ["PUT ", "POST uploads"]) {
      await until(`${what} is not answered`, () => gone.includes(what));
      await waits.waitFor();
      same(existsSync(join(dir, "folder")), what !== "PUT ", "how far it came");
      await context.setOffline(false);
    }
    await loaded;
    for (const name of ["first", "folder/second"]) same(readFileSync(join(dir, name), "utf8"), name, "what arrived");
    await page.getByRole("status").filter({ hasText: "2 of 2 are there." }).waitFor();
  }, { known: [/ERR_INTERNET_DISCONNECTED/] });
});
