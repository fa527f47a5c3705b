// `portreeve terminal` behind the portal: what a person sees and does in it, and what the network does to them.

import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { connect } from "node:net";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { freePort, listening, start, until } from "./children.mjs";
import { contains, PHONE, same, screenshots, suite, Visitor } from "./world.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const kept = process.env.PORTREEVE_KEEP_SCREENSHOTS === "1" ? resolve(here, "../../docs/images") : screenshots;
const TOKEN = "browser-test-0123456789abcdef";

const names = {
  types: "terminal: what is typed runs, and the secret stays out of the address and the log",
  size: "terminal: the program knows the window's size",
  text: "terminal: characters cut in two, wide ones, and 24-bit colour",
  cut: "terminal: after a cut the same program comes back, with what was missed and what was before",
  gone: "terminal: a page whose job has gone says so",
  looks: "terminal: who only looks sees everything, and neither types nor has files",
  paste: "terminal: several lines are pasted as one",
  copy: "terminal: a word is copied",
  search: "terminal: old output is searched",
  links: "terminal: an address opens beside it",
  roundTrip: "terminal: files of every name go to the program's directory and come back",
  replace: "terminal: a file is replaced only when that was said",
  cancel: "terminal: an upload that is cancelled or cut leaves nothing",
  drop: "terminal: what is dropped on it is stored",
  walk: "terminal: directories are walked, and one outside of home is said to be",
  dialog: "terminal: a program's questions are answered, and its file is fetched after its end",
  pictures: "terminal: phone and desktop, light and dark",
};

const HEAT = `int setup(int n) {
  for (int i = 0; i < n; i++) fill(i);
  return n;
}
double total(int n) {
  double sum = 0;
  for (int t = 0; t < 10; t++) step(t);
  for (int i = 0; i < n; i++) sum += at(i);
  return sum;
}
`;
/** What the stand-in for the parallelization tool asks, and what it is told. */
const DIALOG = [
  ["(1 MPI, 2 OpenMP, 3 CUDA)", "2"], ["Which function?", "2"], ["step(t)", "n"], ["sum += at(i)", "maybe"], ["Please answer", "y"],
  ["reduction? (y/n)", "y"], ["Which operation?", "+"], ["Which variable?", "sum"], ["private variables? (y/n)", "n"],
];

/** What the terminal shows, line by line. */
const shown = (page) => page.evaluate(() =>
  [...document.querySelectorAll(".xterm-rows > div")].map((row) => row.textContent.replaceAll("\u00a0", " ").trimEnd()).join("\n"));

async function shows(page, text) {
  let last = "";
  await until(`the terminal shows ${JSON.stringify(text)}`, async () => (last = await shown(page)).includes(text))
    .catch((error) => { throw new Error(`${error.message}; it shows:\n${last}`); });
}

const state = (page, text) => page.locator("#state").filter({ hasText: text }).waitFor();
const enter = (page, line) => page.keyboard.type(`${line}\n`);
const sent = (page, text) => page.locator("#sent li").filter({ hasText: text });

/** A program in a terminal, with a home of its own. */
async function terminal(world, name, program, { cwd, ...environment } = {}) {
  const home = join(world.dir, `home-${name}`);
  mkdirSync(home, { recursive: true });
  const port = await freePort();
  const log = join(world.dir, `${name}.log`);
  const child = start(process.env.PORTREEVE_PROGRAM, ["terminal", "--listen", `127.0.0.1:${port}`, "--title", "c1", "--", ...program], {
    cwd: cwd ?? home, stdout: log, stderr: log,
    env: { ...process.env, HOME: home, PORTREEVE_TOKEN: TOKEN, PS1: "$ ", RUST_LOG: "debug", ...environment },
  });
  await listening(port);
  return { home, port, log, end: () => child.kill("SIGKILL") && child.ended, address: `${world.url}/fw2/localhost:${port}/`, ended: child.ended };
}

const shell = (world, name) => terminal(world, name, ["bash", "--norc", "--noprofile"]);

async function open(visitor, app) {
  await visitor.page.goto(`${app.address}?token=${TOKEN}`);
  await state(visitor.page, "connected");
  await shows(visitor.page, "$");
}

/** The terminal as the portal of somebody else shows it: it says who they are. */
async function seenAs(user, port) {
  const fields = (incoming) => ({ ...incoming.headers, "x-forwarded-user": user, "x-forwarded-host": incoming.headers.host });
  const server = createServer((incoming, answer) => {
    const asked = request({ port, method: incoming.method, path: incoming.url, headers: fields(incoming) }, (said) => {
      answer.writeHead(said.statusCode, said.headers);
      said.pipe(answer);
    });
    asked.on("error", () => answer.destroy());
    incoming.pipe(asked);
  });
  server.on("upgrade", (incoming, socket) => {
    const upstream = connect(port, "127.0.0.1", () => {
      const lines = Object.entries(fields(incoming)).map(([name, value]) => `${name}: ${value}\r\n`).join("");
      upstream.write(`GET ${incoming.url} HTTP/1.1\r\n${lines}\r\n`);
      upstream.pipe(socket).pipe(upstream);
    });
    for (const side of [socket, upstream]) side.on("error", () => { socket.destroy(); upstream.destroy(); });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}/`, end: () => { server.close(); server.closeAllConnections(); } };
}

export const run = (browser, report) => suite(browser, report, Object.values(names), async (world, { visit }) => {
  const inShell = (name, body, options) => visit(name, async (visitor) => {
    const app = await shell(world, Object.keys(names).find((key) => names[key] === name));
    try {
      // So that a test can close what the page opened.
      await visitor.context.addInitScript(() => {
        window.sockets = [];
        window.WebSocket = class extends WebSocket {
          constructor(...given) {
            super(...given);
            window.sockets.push(this);
          }
        };
      });
      await open(visitor, app);
      await body(visitor, app, visitor.page);
    } finally {
      await app.end();
    }
  }, options);

  await inShell(names.types, async (visitor, app, page) => {
    await enter(page, "echo sum-$((40+2))-${PORTREEVE_TOKEN:-none}");
    await shows(page, "sum-42-none");
    same(page.url(), app.address, "the address");
    same(await page.evaluate(() => document.cookie), "", "what scripts see of the cookie");
    for (const log of [world.log, app.log]) same(readFileSync(log, "utf8").includes(TOKEN), false, `the token in ${log}`);
    visitor.expectOnly(world.url);
    await enter(page, "exit 3");
    await state(page, "ended with code 3");
  });

  await inShell(names.size, async (_, app, page) => {
    const size = async (number) => {
      await enter(page, `echo "size-${number} $(stty size)"`);
      await until("the size", async () => new RegExp(`size-${number} \\d+ \\d+`).test(await shown(page)));
      return new RegExp(`size-${number} (\\d+) (\\d+)`).exec(await shown(page)).slice(1).map(Number);
    };
    const [rows, columns] = await size(1);
    await page.setViewportSize({ width: 700, height: 500 });
    await until("the terminal is smaller", async () => (await page.locator(".xterm-rows > div").count()) < rows);
    const [fewerRows, fewerColumns] = await size(2);
    if (!(fewerRows < rows && fewerColumns < columns)) throw new Error(`${rows}x${columns} became ${fewerRows}x${fewerColumns}`);
    same(await page.locator(".xterm-rows > div").count(), fewerRows, "the rows");
  });

  await inShell(names.text, async (_, app, page) => {
    await enter(page, "printf 'p\\303'; sleep 0.3; printf '\\244rt \\360\\237'; sleep 0.3; printf '\\230\\200 \\346\\274\\242 end\\n'");
    await shows(page, "pärt 😀 漢 end");
    await enter(page, "printf '\\e[38;2;18;52;86mblue\\e[48;2;255;224;192mback\\e[0m\\n'");
    await shows(page, "blueback");
    const colours = await page.evaluate(() => {
      const of = (text) => getComputedStyle([...document.querySelectorAll(".xterm-rows span")].filter((span) => span.textContent === text).at(-1));
      return [of("blue").color, of("back").backgroundColor].join(" ");
    });
    same(colours, "rgb(18, 52, 86) rgb(255, 224, 192)", "the colours");
  });

  await inShell(names.cut, async (visitor, app, page) => {
    await enter(page, "mine=$RANDOM; echo \"mine $mine\"; seq -f 'line %g' 300");
    await shows(page, "line 300");
    await enter(page, "(while ! [ -e go ]; do sleep 0.05; done; echo missed-$((1+1))) & echo pid-$$-");
    const pid = await until("the shell's number", async () => /pid-\d+-/.exec(await shown(page))?.[0]);
    await visitor.context.setOffline(true);
    await page.evaluate(() => window.sockets.at(-1).close());
    await state(page, "reconnecting");
    writeFileSync(join(app.home, "go"), "");
    await visitor.context.setOffline(false);
    await state(page, "connected");
    await shows(page, "missed-2");
    await enter(page, "echo again-$$-$mine-");
    await shows(page, `again-${pid.slice(4)}`);
    // A second time, from nothing: the page is loaded anew.
    await page.reload();
    await state(page, "connected");
    await shows(page, `again-${pid.slice(4)}`);
    await page.locator(".xterm-screen").click();
    await until("what scrolled out", async () => {
      await page.keyboard.press("Shift+PageUp");
      return /mine \d+\nline 1\nline 2\n/.test(await shown(page));
    });
  }, { known: [/ws: net::ERR_INTERNET_DISCONNECTED/, /console: WebSocket connection .* failed/, /request failed: HEAD/] });

  await inShell(names.gone, async (_, app, page) => {
    await app.end();
    await state(page, "its job may have ended");
  }, { known: [/^50[0-9]: HEAD/, /console: WebSocket connection .* failed/] });

  await inShell(names.looks, async (visitor, app, page) => {
    const other = await seenAs("somebody-else", app.port);
    const guest = await Visitor.begin(world);
    await guest.page.goto(`${other.url}?token=${TOKEN}`);
    await state(guest.page, "connected, read-only");
    await enter(page, "echo both-$((2+3))");
    await shows(guest.page, "both-5");
    await guest.page.locator(".xterm-screen").click();
    await enter(guest.page, "echo intruder");
    // A message that may not be: it would arrive before the owner's next.
    await enter(page, "echo after-$((3+4))");
    await shows(guest.page, "after-7");
    same((await shown(page)).includes("intruder"), false, "what the guest typed");
    for (const button of ["Files", "Type here"]) same(await guest.page.getByRole("button", { name: button }).isVisible(), false, button);
    const refused = await guest.page.evaluate(async () => {
      const answers = [fetch("files"), fetch("file?path=x"), fetch("file?path=x", { method: "PUT", body: "x", headers: { "if-none-match": "*" } })];
      return (await Promise.all(answers)).map((answer) => answer.status).join();
    });
    same(refused, "403,403,403", "the guest's files");
    same(readdirSync(app.home).length, 0, "files stored");
    guest.expectClean(/^403: /);
    await guest.end();
    other.end();
  });

  const clipboard = { permissions: ["clipboard-read", "clipboard-write"] };
  await inShell(names.paste, async (_, app, page) => {
    await page.evaluate(() => navigator.clipboard.writeText("echo one-$((1))\necho two-$((2))\n"));
    await page.getByRole("button", { name: "Paste" }).click();
    await shows(page, "echo two-$((2))");
    // bash asks for brackets around what is pasted: it waits for Enter.
    same((await shown(page)).includes("one-1"), false, "it ran by itself");
    await page.keyboard.press("Enter");
    await shows(page, "one-1\ntwo-2");
  }, { browser: clipboard });

  await inShell(names.copy, async (_, app, page) => {
    await enter(page, "clear; echo copied-$((6*7))");
    await shows(page, "copied-42");
    const word = page.locator(".xterm-rows > div").filter({ hasText: "copied-42" }).first();
    const { x, y, height } = await word.boundingBox();
    await page.mouse.dblclick(x + 20, y + height / 2);
    await page.keyboard.press("Control+Shift+C");
    await state(page, "copied");
    same(await page.evaluate(() => navigator.clipboard.readText()), "copied-42", "the clipboard");
  }, { browser: clipboard });

  await inShell(names.search, async (_, app, page) => {
    await enter(page, "seq -f 'needle-%g' 3; seq 200; echo last-$((1))");
    await shows(page, "last-1");
    const rows = await page.locator(".xterm-rows > div").count();
    await page.keyboard.press("Control+Shift+F");
    await page.getByRole("searchbox").fill("needle-2");
    await page.locator("#found").filter({ hasText: "1 of 1" }).waitFor();
    await shows(page, "needle-2");
    await page.screenshot({ path: join(screenshots, "terminal-search.png") });
    // A resized terminal would lose the match.
    same(await page.locator(".xterm-rows > div").count(), rows, "the rows");
    await page.getByRole("searchbox").fill("no such");
    await page.locator("#found").filter({ hasText: "nothing found" }).waitFor();
    await page.keyboard.press("Escape");
    same(await page.getByRole("searchbox").isVisible(), false, "the search");
    await enter(page, "echo typed-$((5+5))");
    await shows(page, "typed-10");
  });

  await inShell(names.links, async (visitor, app, page) => {
    await visitor.context.route("https://example.org/**", (route) => route.fulfill({ contentType: "text/html", body: '<link rel="icon" href="data:,">there' }));
    await enter(page, "clear; echo https://example.org/a?b=c");
    await until("the address stands alone", async () => (await shown(page)).startsWith("https://example.org/a?b=c\n"));
    const row = page.locator(".xterm-rows > div").filter({ hasText: /^https:\/\/example/ }).first();
    const { x, y, height } = await row.boundingBox();
    const opened = visitor.context.waitForEvent("page");
    await page.mouse.move(x + 40, y + height / 2);
    await until("the address is shown", () => page.locator("#screen").getAttribute("title"));
    await page.mouse.click(x + 40, y + height / 2);
    const beside = await opened;
    await beside.waitForURL("https://example.org/a?b=c");
    same(await beside.evaluate(() => window.opener), null, "what it knows of the terminal");
  });

  /** Shows the files of the program's directory. */
  const files = async (page) => {
    await page.getByRole("button", { name: "Files" }).click();
    await page.locator("#why").filter({ hasText: "here" }).waitFor();
  };
  const fetched = async (page, name) => {
    const download = page.waitForEvent("download");
    await page.locator("#entries a").filter({ hasText: name }).click();
    const done = await download;
    return { content: readFileSync(await done.path()), name: done.suggestedFilename() };
  };

  await inShell(names.roundTrip, async (_, app, page) => {
    await enter(page, "mkdir -p work && cd work && echo in-$((1+1))");
    await shows(page, "in-2");
    await files(page);
    same(await page.locator("#path").inputValue(), "~/work", "the directory");
    const all = {
      "plain.txt": Buffer.from("plain"),
      "empty": Buffer.alloc(0),
      "a \"quoted\" 'one' & more #1 100%.txt": Buffer.from("quoted"),
      "grüße 漢字 😀.bin": Buffer.from([0, 1, 2, 255]),
      "<img src=x onerror=alert(1)>": Buffer.from("no markup"),
      "two\nlines": Buffer.from("two"),
      "large": Buffer.alloc(3_000_000, "0123456789"),
    };
    await page.locator("#chosen").setInputFiles(Object.entries(all).map(([name, buffer]) => ({ name, mimeType: "text/plain", buffer })));
    await until("all are stored", async () => (await sent(page, "Stored in").count()) === Object.keys(all).length);
    same(readdirSync(join(app.home, "work")).sort().join("|"), Object.keys(all).sort().join("|"), "the files");
    for (const [name, content] of Object.entries(all)) {
      same(readFileSync(join(app.home, "work", name)).equals(content), true, `the content of ${name}`);
      const back = await fetched(page, name.split("\n")[0]);
      same(back.content.equals(content), true, `what came back of ${name}`);
      if (/^[\w .]+$/.test(name)) same(back.name, name, "its name");
    }
  });

  await inShell(names.replace, async (_, app, page) => {
    const at = join(app.home, "results.txt");
    writeFileSync(at, "old");
    await files(page);
    const send = (text) => page.locator("#chosen").setInputFiles({ name: "results.txt", mimeType: "text/plain", buffer: Buffer.from(text) });
    // The refusal comes long before the end, and is read all the same.
    const large = join(world.dir, "results.txt");
    writeFileSync(large, Buffer.alloc(30_000_000));
    await page.locator("#chosen").setInputFiles(large);
    await sent(page, "It is in ~ already, with 3 B.").getByRole("button", { name: "Skip" }).click();
    await sent(page, "Not sent").waitFor();
    same(readFileSync(at, "utf8"), "old", "the file");
    await send("new");
    await sent(page, "It is in ~ already").getByRole("button", { name: "Replace" }).click();
    await sent(page, "Stored in").waitFor();
    same(readFileSync(at, "utf8"), "new", "the file");
  }, { known: [/^412: PUT/] });

  await inShell(names.cancel, async (visitor, app, page) => {
    await files(page);
    const tools = await visitor.context.newCDPSession(page);
    const network = (uploadThroughput) =>
      tools.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput });
    const send = (name) => page.locator("#chosen").setInputFiles({ name, mimeType: "text/plain", buffer: Buffer.alloc(4_000_000, "x") });
    await network(300_000);
    await send("cancelled");
    await until("a part is sent", async () => Number(await page.locator("#sent progress").getAttribute("value")) > 0);
    await page.locator("#sent").getByRole("button", { name: "Cancel" }).click();
    await sent(page, "Cancelled. Nothing was stored.").waitFor();
    await send("cut");
    await until("a part is sent", async () => Number(await sent(page, "cut").locator("progress").getAttribute("value")) > 0);
    // The page goes in the middle of it, after a warning.
    const warned = page.waitForEvent("dialog").then((dialog) => dialog.accept());
    await Promise.all([page.reload(), warned]);
    await network(-1);
    await state(page, "connected");
    await until("nothing is stored, and nothing hidden left", () => readdirSync(app.home).length === 0);
    await files(page);
    await page.route(/file\?path=/, (route) => route.abort("connectionreset"), { times: 1 });
    await send("broken");
    await sent(page, "The connection broke. Nothing was stored.").getByRole("button", { name: "Try again" }).click();
    await sent(page, "Stored in").waitFor();
    same(readdirSync(app.home).join(), "broken", "what is stored");
  }, { known: [/PUT .*ERR_ABORTED/, /PUT .*ERR_CONNECTION_RESET/] });

  await inShell(names.drop, async (_, app, page) => {
    await enter(page, "mkdir sub; cd sub; echo in-$((1+1))");
    await shows(page, "in-2");
    const transfer = await page.evaluateHandle(() => {
      const data = new DataTransfer();
      data.items.add(new File(["dropped"], "dropped.txt"));
      return data;
    });
    await page.dispatchEvent("#screen", "dragover", { dataTransfer: transfer });
    await page.dispatchEvent("#screen", "drop", { dataTransfer: transfer });
    await sent(page, "Stored in").waitFor();
    same(readFileSync(join(app.home, "sub", "dropped.txt"), "utf8"), "dropped", "the file");
  });

  await inShell(names.walk, async (_, app, page) => {
    mkdirSync(join(app.home, "data", "inner"), { recursive: true });
    writeFileSync(join(app.home, "data", "inner", "deep.txt"), "deep");
    writeFileSync(join(app.home, ".hidden"), "");
    await files(page);
    same(await page.locator("#entries").innerText(), "data/", "what is listed");
    await page.getByLabel("hidden files").check();
    contains(await page.locator("#entries").innerText(), ".hidden", "what is listed");
    await page.getByRole("button", { name: "data/" }).click();
    await page.getByRole("button", { name: "inner/" }).click();
    same((await fetched(page, "deep.txt")).content.toString(), "deep", "the file");
    await page.getByRole("button", { name: "The directory above" }).click();
    await page.getByRole("button", { name: "inner/" }).waitFor();
    const go = async (path) => {
      await page.locator("#path").fill(path);
      await page.locator("#path").press("Enter");
    };
    await go("/");
    await page.locator("#why").filter({ hasText: "Outside of your home." }).waitFor();
    await go("~/data/..");
    await page.locator("#why").filter({ hasText: 'Write the path without "..".' }).waitFor();
    await go("none");
    await page.locator("#why").filter({ hasText: "There is no such file or directory." }).waitFor();
    const download = page.waitForEvent("download");
    await go("~/data/inner/deep.txt");
    same((await download).suggestedFilename(), "deep.txt", "the file that was named");
    await page.getByRole("button", { name: "Program’s directory" }).click();
    await page.locator("#why").filter({ hasText: "The program is here." }).waitFor();
    same(await page.locator("#path").inputValue(), "~", "the directory");
  }, { known: [/^40[049]: GET .*files\?path/] });

  await visit(names.dialog, async ({ page }) => {
    const work = join(world.dir, "ipt");
    mkdirSync(work);
    writeFileSync(join(work, "heat.c"), HEAT);
    const app = await terminal(world, "ipt", ["python3", join(here, "parallelize.py"), "heat.c"], { cwd: work });
    await page.goto(`${app.address}?token=${TOKEN}`);
    for (const [question, answer] of DIALOG) {
      await shows(page, question);
      await enter(page, answer);
    }
    await shows(page, "Wrote rose_heat_OpenMP.c");
    await state(page, "ended with code 0");
    await page.getByRole("button", { name: "Files" }).click();
    await page.locator("#why").filter({ hasText: "The terminal began here." }).waitFor();
    const { content, name } = await fetched(page, "rose_heat_OpenMP.c");
    same(name, "rose_heat_OpenMP.c", "its name");
    contains(content.toString(), "#pragma omp parallel for reduction(+:sum)\n  for (int i = 0; i < n; i++) sum += at(i);", "the program");
    await page.goto("about:blank");
    same(await Promise.race([app.ended, new Promise((late) => setTimeout(late, 15_000, "late"))]) === "late", false, "the server stays when nobody is there");
  });

  await inShell(names.pictures, async (visitor, app, page) => {
    const work = join(app.home, "heat");
    mkdirSync(join(work, "runs"), { recursive: true });
    writeFileSync(join(work, "heat.c"), HEAT);
    writeFileSync(join(work, "results.csv"), "x".repeat(1_234_567));
    await enter(page, `ipt() { python3 '${join(here, "parallelize.py")}' "$@"; }; cd heat; clear`);
    await enter(page, "ls --color=always -l --time-style=+");
    await shows(page, "results.csv");
    await enter(page, "ipt heat.c");
    for (const [question, answer] of DIALOG.slice(0, 5)) {
      await shows(page, question);
      await enter(page, answer);
    }
    await shows(page, "reduction?");
    await visitor.pictures("terminal");
    await page.locator("#show-files").click();
    await page.locator("#entries").filter({ hasText: "results.csv" }).waitFor();
    await page.locator("#chosen").setInputFiles({ name: "input.dat", mimeType: "text/plain", buffer: Buffer.alloc(40_000) });
    await sent(page, "Stored in").waitFor();
    await page.locator("#chosen").setInputFiles({ name: "heat.c", mimeType: "text/plain", buffer: Buffer.alloc(4000) });
    await sent(page, "already").waitFor();
    await visitor.pictures("terminal-files");
    // Three for the documents.
    for (const [name, viewport, colorScheme] of [["terminal", null, "light"], ["terminal-dark", null, "dark"], ["terminal-phone", PHONE, "light"]]) {
      await page.setViewportSize(viewport ?? { width: 1100, height: 640 });
      await page.emulateMedia({ colorScheme });
      if (viewport) await page.getByRole("button", { name: "Close" }).click();
      await page.screenshot({ path: join(kept, `${name}.png`) });
    }
  }, { known: [/^412: PUT/] });
}, undefined);
