// The page Files, as people use it: with a mouse, with a keyboard, by a screen reader and without scripts. What is uploaded: uploads.mjs.

import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { until } from "./children.mjs";
import { contains, same, suite } from "./world.mjs";

const names = {
  hands: "files: a folder is made, files are uploaded, looked at, renamed, moved, downloaded and deleted",
  keys: "files: rows are walked, opened, chosen and deleted by keys",
  walk: "files: a long list is walked by keys while its rows are fetched, and each row says which it is",
  named: "files: a screen reader has a name for all that can be pressed, followed or filled in",
  plain: "files: without scripts all but uploading can be done",
  many: "files: of a hundred thousand entries the page holds few, and comes to each of them",
  all: "files: all that fit are chosen, and where that is more than a form takes it is said",
  pictures: "files: phone and desktop, light and dark",
  odd: "files: names that would mislead and dates beyond any calendar keep no row away",
};

const HEAT = `#include <stdio.h>

int main(void) {
    const int n = 1000;
    double at[1000] = {0}, next[1000] = {0};
    at[0] = 100;
    for (int step = 0; step < 10000; step++) {
        for (int i = 1; i < n - 1; i++) next[i] = at[i] + 0.5 * (at[i - 1] - 2 * at[i] + at[i + 1]);
        for (int i = 1; i < n - 1; i++) at[i] = next[i];
    }
    printf("%f\\n", at[1]);
}
`;

export const page_of = (dir) => `/files${dir.split("/").map(encodeURIComponent).join("/")}/`;

/** The home directory, and new folders in it. */
export function places(world) {
  const work = (name) => {
    const dir = join(world.dir, name);
    mkdirSync(dir);
    return dir;
  };
  return { home: world.dir, work };
}

/** Keeps what the page's live regions say; what is given answers with it. */
export async function listen(page) {
  await page.evaluate(() => {
    window.heard = [];
    for (const region of document.querySelectorAll("output:not([aria-live=off]), [role=status], [aria-live=polite]")) {
      new MutationObserver(() => window.heard.push(region.textContent)).observe(region, { childList: true, characterData: true, subtree: true });
    }
  });
  return () => page.evaluate(() => window.heard);
}

/** What each tab's process takes of the memory, in MiB: all that is mapped, and its share of it. */
async function tabs(browser) {
  const tools = await browser.newBrowserCDPSession();
  const { processInfo } = await tools.send("SystemInfo.getProcessInfo");
  await tools.detach();
  const number = (pid, file, name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(readFileSync(`/proc/${pid}/${file}`, "utf8"))[1]) / 1024;
  return processInfo.filter(({ type }) => type === "renderer").map(({ id }) => ({ rss: number(id, "status", "VmRSS"), pss: number(id, "smaps_rollup", "Pss") }));
}

export const run = (browser, report) => suite(browser, report, Object.values(names), async (world, { test, visit }) => {
  const { home, work } = places(world);

  await visit(names.hands, async (visitor) => {
    const { page } = visitor, dir = work("hands");
    await page.getByRole("link", { name: "Files", exact: true }).click();
    contains(await page.locator(".crumbs").innerText(), home.split("/").pop(), "it begins at home");
    await visitor.open(page_of(dir));
    contains(await page.locator("#files").innerText(), "This folder is empty.", "an empty folder");
    await page.getByLabel("New folder").fill("results ü");
    await page.getByRole("button", { name: "Make it" }).click();
    await page.getByRole("link", { name: "results ü/" }).waitFor();
    const uploaded = page.waitForEvent("load");
    await page.getByLabel("Upload files").setInputFiles([
      { name: "note.txt", mimeType: "text/plain", buffer: Buffer.from("to be seen\n") },
      { name: "page.html", mimeType: "text/html", buffer: Buffer.from("<script>document.title = 'run'</script>") },
    ]);
    await uploaded;
    await page.getByRole("link", { name: "note.txt" }).waitFor();
    same(readFileSync(join(dir, "note.txt"), "utf8"), "to be seen\n", "what was uploaded");
    contains(await page.getByRole("row", { name: /note.txt/ }).innerText(), "can open this", "permissions in words");
    await page.getByRole("link", { name: "page.html" }).click();
    contains(await page.locator("pre").innerText(), "<script>", "a page is shown as text");
    contains(await page.title(), "Files: ", "and not run");
    await page.getByLabel("New name").fill("renamed.html");
    await page.getByRole("button", { name: "Rename" }).click();
    await page.getByRole("link", { name: "renamed.html" }).click();
    const download = page.waitForEvent("download");
    await page.getByRole("link", { name: "Download", exact: true }).click();
    same(readFileSync(await (await download).path(), "utf8"), "<script>document.title = 'run'</script>", "what is downloaded");
    await visitor.open(page_of(dir));
    await page.getByLabel("Choose renamed.html").check();
    await page.getByRole("button", { name: "Move", exact: true }).click();
    await page.getByLabel("Into the folder").fill(join(dir, "results ü"));
    await page.getByRole("button", { name: "Move", exact: true }).click();
    await until("it is moved", () => existsSync(join(dir, "results ü", "renamed.html")));
    await page.getByLabel("Choose results ü").check();
    const archive = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download as zip" }).click();
    same(readFileSync(await (await archive).path()).subarray(0, 2).toString(), "PK", "an archive");
    await visitor.open(page_of(dir));
    await page.getByLabel("Choose note.txt").check();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    contains(await page.locator("main").innerText(), "Nobody can bring it back", "the question");
    await visitor.pictures("files-delete");
    same(existsSync(join(dir, "note.txt")), true, "before the answer it is there");
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await until("it is gone", () => !existsSync(join(dir, "note.txt")));
    await page.getByRole("link", { name: "Open a terminal here" }).click();
    same(await page.locator('[name="f.directory"]').inputValue(), dir, "the terminal's form knows where");
  }, { known: [/request failed: GET .*\/api\/v1\/files\/.*: net::ERR_ABORTED/, /request failed: POST .*\/files\/.*: net::ERR_ABORTED/] });

  await visit(names.keys, async (visitor) => {
    const { page } = visitor, dir = work("keys");
    for (const name of ["a", "b", "c"]) writeFileSync(join(dir, name), name);
    await visitor.open(page_of(dir));
    const focused = () => page.evaluate(() => document.activeElement.textContent || document.activeElement.value);
    await page.getByRole("link", { name: "a", exact: true }).focus();
    await page.keyboard.press("ArrowDown");
    same(await focused(), "b", "one down");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowUp");
    same(await focused(), "b", "and up");
    await page.keyboard.press("Delete");
    await page.getByRole("button", { name: "Delete", exact: true }).waitFor();
    contains(await page.locator("main li").innerText(), "b", "it is asked about that one");
    await visitor.open(page_of(dir));
    mkdirSync(join(dir, "d"));
    const known = page.getByRole("heading", { name: "What it is" });
    for (const [name, key] of [["c", "F2"], ["d/", "F2"], ["c", "Enter"]]) {
      await visitor.open(page_of(dir));
      await page.getByRole("link", { name, exact: true }).focus();
      await page.keyboard.press(key);
      await known.waitFor();
      contains(await page.title(), `keys/${name[0]} `, "whose page it is");
    }
    await visitor.open(page_of(dir));
    const heard = await listen(page), box = (name) => page.getByLabel(`Choose ${name}`, { exact: true });
    await box("a").focus();
    await page.keyboard.press("Space");
    same(await box("a").isChecked(), true, "Space chooses at a box");
    await page.getByRole("link", { name: "b", exact: true }).focus();
    await page.keyboard.press("Space");
    same(await box("b").isChecked(), true, "and at a name");
    same(await focused(), "b", "where it stays");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Space");
    await page.keyboard.press("Space");
    same(await box("c").isChecked(), false, "and once more lets go");
    same((await heard()).join(), "1 chosen,2 chosen,3 chosen,2 chosen", "what a screen reader says");
    await page.getByRole("button", { name: "Copy", exact: true }).press("Enter");
    await page.getByLabel("Into the folder").waitFor();
    same((await page.locator("main li").allInnerTexts()).join(), "a,b", "what is chosen");
    const header = await page.goto(`${world.url}${page_of(dir)}?sort=size&order=down`).then(() => page.locator('th[aria-sort="descending"]').innerText());
    same(header, "Size", "a screen reader hears how it is sorted");
  });

  await visit(names.walk, async (visitor) => {
    const { page } = visitor, dir = work("walk"), name = (number) => `f${String(number).padStart(6, "0")}`;
    for (let number = 0; number < 450; number += 1) writeFileSync(join(dir, name(number)), "");
    let let_go;
    const held = new Promise((done) => { let_go = done; });
    await page.route(/offset=200&/, async (route) => { await held; await route.continue(); });
    await visitor.open(page_of(dir));
    const at = () => page.evaluate(() => document.activeElement.closest("#files tbody tr")?.querySelector(".name").innerText);
    const press = async (key, times) => {
      for (let time = 0; time < times; time += 1) {
        await page.keyboard.press(key);
        if (!await at()) throw new Error(`after ${time + 1} times ${key} nothing of the list has the focus`);
      }
    };
    await page.getByRole("link", { name: name(0), exact: true }).focus();
    await press("ArrowDown", 205);
    same(await at(), name(199), "as far as there are rows");
    let_go();
    await until("it goes on when they have come", async () => (await at()) === name(205));
    await press("ArrowDown", 60);
    await until("past all that came with the page", async () => (await at()) === name(265));
    const seen = await page.evaluate(() => {
      const { top, bottom } = document.activeElement.getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight;
    });
    same(seen, true, "it is in sight");
    const check = async () => {
      const rows = await page.evaluate(() => [...document.querySelectorAll("#files tbody tr:not(.room)")].map((row) => [row.getAttribute("aria-rowindex"), row.querySelector(".name").innerText].join()));
      const begin = Number(/(\d+)$/.exec(rows[0])[1]);
      same(rows.join(" "), rows.map((_, number) => `${begin + number + 2},${name(begin + number)}`).join(" "), "which row each is");
      return begin;
    };
    same((await check()) > 0, true, "the first ones are not drawn any more");
    same(await page.getByRole("table").getAttribute("aria-rowcount"), "451", "how many rows there are, with the head");
    await press("ArrowUp", 260);
    await until("and back", async () => (await at()) === name(5));
    same(await check(), 0, "the first ones are there again");
    await press("ArrowUp", 20);
    same(await at(), name(0), "there is nothing above the first");
  });

  await visit(names.named, async (visitor) => {
    const { page, context } = visitor, dir = work("named");
    mkdirSync(join(dir, "folder"));
    for (const name of ["text", "archive.zip"]) writeFileSync(join(dir, name), name);
    writeFileSync(join(dir, "picture.png"), Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64"));
    const tools = await context.newCDPSession(page);
    const ROLES = ["button", "link", "textbox", "searchbox", "checkbox", "radio", "combobox", "progressbar", "img", "image", "table", "columnheader", "navigation", "toolbar", "search"];
    /** What a screen reader is told of: as many of each role as are expected at least, and none without a name. */
    const told = async (...expected) => {
      const { nodes } = await tools.send("Accessibility.getFullAXTree");
      const all = nodes.filter(({ ignored, role }) => !ignored && ROLES.includes(role?.value)).map(({ role, name, backendDOMNodeId }) => ({ role: role.value, name: name?.value?.trim(), backendDOMNodeId }));
      for (const one of all.filter(({ role, name }) => !name && !["table", "search"].includes(role))) {
        const { outerHTML } = await tools.send("DOM.getOuterHTML", { backendNodeId: one.backendDOMNodeId });
        throw new Error(`a ${one.role} has no name: ${outerHTML.slice(0, 300)}`);
      }
      const names = all.map(({ role, name }) => `${role} ${name}`);
      for (const one of expected) if (!names.includes(one)) throw new Error(`${one} is not among ${names.join("; ")}`);
    };
    await visitor.open(page_of(dir));
    // A line that waits, and one that failed.
    await page.route("**/api/v1/uploads", (route) => route.fulfill(route.request().postData().includes("waits") ? { status: 503 } : { status: 403, json: { detail: "You may not." } }));
    await page.getByLabel("Upload files").setInputFiles(["fails", "waits", "is next"].map((name) => ({ name, mimeType: "text/plain", buffer: Buffer.from(name) })));
    await page.locator("#uploads li", { hasText: "waits" }).locator("output", { hasText: "tried again" }).waitFor();
    await told("button Upload files", "button Upload a folder", "checkbox Choose all", "checkbox Choose text", "link text", "link folder/", "link About folder", "searchbox Part of the name", "textbox New folder",
      "button Give up waits", "button Give up is next", "progressbar Uploaded of waits", "button Delete", "columnheader Size", "navigation Place", "toolbar With what is chosen");
    for (const name of ["is next", "waits"]) await page.getByRole("button", { name: `Give up ${name}` }).click();
    await until("all is said", async () => (await page.locator("#uploads output").allInnerTexts()).join() === "You may not.,Given up.,Given up.");
    for (const name of ["text", "archive.zip", "folder?about"]) {
      await visitor.open(page_of(dir) + name);
      await told("textbox New name", "textbox Permissions, as for chmod", "button Rename", "button Delete", ...(name === "archive.zip" ? ["textbox Unpack into the new folder"] : []));
    }
    await visitor.open(`${page_of(dir)}picture.png`);
    await told("image The picture picture.png");
    for (const name of ["text", "folder"]) {
      await visitor.open(page_of(dir));
      await page.getByLabel(`Choose ${name}`).check();
      await page.getByRole("button", { name: name === "text" ? "Delete" : "Move", exact: true }).click();
      await page.getByRole("link", { name: name === "text" ? "Keep" : "Leave it" }).waitFor();
      await told(...(name === "text" ? ["button Delete", "link Keep"] : ["textbox Into the folder", "button Move", "link Leave it"]));
      same(await page.getByRole("heading", { level: 1 }).innerText(), name === "text" ? "Delete for good?" : "Move where?", "the question");
    }
  }, { known: [/^(403|503): POST/] });

  await test(names.plain, async () => {
    const dir = work("plain");
    writeFileSync(join(dir, "old.txt"), "text");
    const visitor = await world.stranger({ javaScriptEnabled: false });
    try {
      const { page } = visitor;
      await page.goto(await world.login());
      await visitor.open(page_of(dir));
      same(await page.locator("#upload").isVisible(), false, "what can't be done is not offered");
      await page.getByLabel("New folder").fill("made");
      await page.getByRole("button", { name: "Make it" }).click();
      await page.getByRole("link", { name: "made/", exact: true }).click();
      contains(await page.locator("#files").innerText(), "empty", "inside");
      await visitor.open(page_of(dir));
      await page.getByLabel("Part of the name").fill("old");
      await page.getByRole("button", { name: "Filter" }).click();
      await page.getByLabel("Choose old.txt").check();
      await page.getByRole("button", { name: "Delete", exact: true }).click();
      await page.getByRole("button", { name: "Delete", exact: true }).click();
      await until("it is gone", () => !existsSync(join(dir, "old.txt")));
    } finally {
      await visitor.end();
    }
  });

  await visit(names.many, async (visitor) => {
    const { page, context } = visitor, dir = work("many");
    for (let number = 0; number < 100_000; number += 1) writeFileSync(join(dir, `f${String(number).padStart(6, "0")}`), "");
    // When the first row is drawn, by the page's own clock: 0 is when the address was asked for.
    await page.addInitScript(() => {
      const look = () => {
        if (document.querySelector("#files tbody tr")?.getClientRects().length) requestAnimationFrame(() => { window.first = performance.now(); });
        else requestAnimationFrame(look);
      };
      look();
    });
    const loads = [];
    for (let load = 0; load < 3; load += 1) {
      await visitor.open(page_of(dir));
      loads.push(await until("the first row is drawn", () => page.evaluate(() => window.first)));
    }
    const median = loads.sort((one, other) => one - other)[1];
    console.log(`  100,000 entries: the first rows after ${loads.map(Math.round).join(", ")} ms`);
    if (median > 1000) throw new Error(`the first rows come after ${Math.round(median)} ms`);
    contains(await page.locator("#count").innerText(), "100000 entries", "the count");
    await until("the page is as high as all of them", () => page.evaluate(() => document.documentElement.scrollHeight > 1_000_000));
    await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
    await page.getByRole("link", { name: "f099999" }).waitFor();
    await page.getByLabel("Choose f099999").check();
    await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight / 2));
    await page.getByRole("link", { name: "f050000" }).waitFor();
    const tools = await context.newCDPSession(page);
    for (let place = 1; place < 20; place += 1) {
      await page.evaluate((part) => scrollTo(0, document.documentElement.scrollHeight * part), place / 20);
      await page.getByRole("link", { name: `f${String(place * 5000).padStart(6, "0")}` }).waitFor();
    }
    // Most of what a process has mapped is Chromium's own program, which all its processes share: what counts of it is the tab's part.
    // What nobody needs any more is thrown away before all that is mapped is counted.
    const largest = async (of) => Math.round(Math.max(...(await tabs(browser)).map((tab) => tab[of])));
    const share = await largest("pss");
    await tools.send("HeapProfiler.collectGarbage");
    const mapped = await largest("rss");
    await tools.send("Performance.enable");
    const nodes = (await tools.send("Performance.getMetrics")).metrics.find((one) => one.name === "Nodes").value;
    console.log(`  100,000 entries: the largest tab has ${share} MiB, ${mapped} MiB with what it shares, ${nodes} nodes`);
    if (share >= 200 || mapped >= 200 || nodes > 30_000) throw new Error("the page holds too much");
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    contains(await page.locator("main li").innerText(), "f099999", "what was chosen and scrolled away is chosen");
    // All of them are too many, and all that fit a filter are not.
    const chosen = page.getByRole("toolbar").getByRole("status"), all = page.getByLabel("Choose all");
    await visitor.open(page_of(dir));
    // Not check(): as not all of them fit, it does not stay checked.
    await all.click();
    await chosen.filter({ hasText: "10,000 chosen of 100,000: no more fit into one form" }).waitFor();
    same(await all.evaluate((box) => box.indeterminate), true, "it is not chosen as a whole");
    await visitor.open(`${page_of(dir)}?filter=f0000`);
    await all.check();
    await chosen.filter({ hasText: /^100 chosen$/ }).waitFor();
    await visitor.open(`${page_of(dir)}?filter=f00`);
    await all.check();
    await chosen.filter({ hasText: /^10,000 chosen$/ }).waitFor();
    await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
    await page.getByLabel("Choose f009999").uncheck();
    await chosen.filter({ hasText: /^9,999 chosen$/ }).waitFor();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.getByText("and 9979 more").waitFor();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.locator("#count").waitFor({ timeout: 60_000 });
    same(readdirSync(dir).length, 90_001, "those are gone, and no others");
  });

  await visit(names.all, async (visitor) => {
    const { page } = visitor, dir = work("all"), long = (number) => `${"ü".repeat(120)}${number}`;
    for (let number = 0; number < 1000; number += 1) writeFileSync(join(dir, long(number)), "");
    const chosen = page.getByRole("toolbar").getByRole("status"), all = page.getByLabel("Choose all");
    await visitor.open(page_of(dir));
    await page.getByLabel(`Choose ${long(0)}`, { exact: true }).focus();
    await page.keyboard.press("Space");
    same(await all.evaluate((box) => box.indeterminate), true, "one of them is not all");
    await all.click();
    await chosen.filter({ hasText: /^8\d\d chosen of 1,000: no more fit into one form$/ }).waitFor();
    const number = Number((await chosen.innerText()).slice(0, 3));
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.getByText(`and ${number - 20} more`).waitFor();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.getByText(`${1000 - number} entries`).waitFor();
    await all.check();
    await chosen.filter({ hasText: new RegExp(`^${1000 - number} chosen$`) }).waitFor();
    await all.uncheck();
    await until("none is", async () => (await chosen.innerText()) === "");
    same(await page.locator("#files tbody input:checked").count(), 0, "none is");
    // One page of a list without its beginning.
    for (let number = 0; number < 450; number += 1) writeFileSync(join(dir, `f${number}`), "");
    await page.route(/limit=10000/, (route) => route.abort(), { times: 1 });
    await visitor.open(`${page_of(dir)}?offset=200&filter=f`);
    // It may be unchecked again before anybody looks.
    await all.click();
    await chosen.filter({ hasText: "The portal does not answer: try again." }).waitFor();
    same(await all.isChecked(), false, "nothing was done");
    await all.check();
    await chosen.filter({ hasText: /^450 chosen$/ }).waitFor();
  }, { known: [/net::ERR_FAILED/] });

  await visit(names.pictures, async (visitor) => {
    const { page } = visitor, dir = work("heat");
    const files = { "heat.c": [HEAT, 0o644], "heat": ["x".repeat(16_384), 0o755], "job.sh": ["#!/bin/sh\n", 0o750], "results.csv": ["x".repeat(1_234_567), 0o644], "notes.txt": ["to do\n", 0o600] };
    for (const name of ["figures", "runs"]) mkdirSync(join(dir, name));
    for (const [name, [content, mode]] of Object.entries(files)) {
      writeFileSync(join(dir, name), content);
      chmodSync(join(dir, name), mode);
    }
    symlinkSync("results.csv", join(dir, "latest.csv"));
    await visitor.open(page_of(dir));
    // Of two uploads one is refused.
    await page.route("**/api/v1/uploads", (route) => route.request().postData().includes("input.dat") ? route.continue() : route.fulfill({ status: 507, json: { detail: "The quota is used up." } }));
    await page.getByLabel("Upload files").setInputFiles(["input.dat", "large.dat"].map((name) => ({ name, mimeType: "text/plain", buffer: Buffer.alloc(40_000) })));
    await page.getByRole("button", { name: "Show the list anew" }).waitFor();
    for (const name of ["runs", "results.csv"]) await page.getByLabel(`Choose ${name}`).check();
    await page.getByRole("status").filter({ hasText: "1 failed" }).waitFor();
    await visitor.pictures("files");
    await page.getByRole("link", { name: "heat.c" }).click();
    await page.getByText("double at[1000]").waitFor();
    await visitor.pictures("files-file");
  }, { known: [/^507: POST/] });

  await visit(names.odd, async (visitor) => {
    const { page } = visitor, dir = work("odd"), count = 450;
    const odd = ["0 a\u202efdp.exe", "1 a\nb", "2 a\u2066b\u061c"], plain = ["0 a\ufffdfdp.exe", "1 a\ufffdb", "2 a\ufffdb\ufffd"];
    for (const name of odd) writeFileSync(join(dir, name), "");
    for (let number = odd.length; number < count; number += 1) writeFileSync(join(dir, `f${String(number).padStart(6, "0")}`), "");
    // Not every file system keeps such a date: then the worker's answer is given it on its way.
    execFileSync("touch", ["-d", "@9000000000000", join(dir, "f000003")]);
    let failed = 0;
    await page.route(/\/api\/v1\/files\/.*offset=/, async (route) => {
      if (route.request().url().includes("offset=200&") && (failed += 1) === 1) { await route.abort(); return; }
      const reply = await route.fetch(), said = await reply.json();
      for (const entry of said.entries) if (entry.name === "f000003") entry.modified = 9e12;
      await route.fulfill({ response: reply, json: said });
    });
    const html = await (await page.request.get(`${world.url}${page_of(dir)}`, { headers: { accept: "text/html" } })).text();
    for (const name of plain) contains(html, name, "as the worker writes it");
    // The first ones that the page shows are the worker's own, the last ones are made by the script.
    await visitor.open(`${page_of(dir)}?order=down`);
    await page.locator("tr.room").first().waitFor({ state: "attached" });
    const rows = () => page.evaluate(() => [...document.querySelectorAll("#files tbody tr[role]")].map((row) => [Number(row.getAttribute("aria-rowindex")), row.innerText]));
    await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
    await until("the last rows have come", async () => (await rows()).at(-1)[0] === count + 1);
    for (const [index, name] of plain.entries()) contains((await rows()).at(-1 - index)[1], name, "and as the script does");
    same((await rows()).at(-4)[1].split("\t").some((cell) => cell.trim() === "?"), true, "a date that is none");
    await page.evaluate(() => scrollTo(0, 0));
    const seen = new Set();
    await until("all rows have come", async () => {
      for (const [index] of await rows()) seen.add(index);
      await page.evaluate(() => scrollBy(0, 400));
      return seen.size === count;
    });
    same(failed > 1, true, "what could not be had is asked for again");
    same(readdirSync(dir).length, count, "as many as there are");
  }, { known: [/net::ERR_FAILED/, /Failed to fetch/] });
});
