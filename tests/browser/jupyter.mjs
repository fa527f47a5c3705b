// A current JupyterLab, as users install it: opened, a notebook made, a cell run and its output read.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { end, freePort, listening, start, until } from "./children.mjs";
import { DESKTOP, same, screenshots, suite } from "./world.mjs";

const venv = process.env.PORTREEVE_TEST_VENV;
export const TOKEN = "0123456789abcdef-of-the-test";

/** Something to see in the picture, without a library that would have to be installed. */
const CURVE = `from math import sin, pi
from IPython.display import SVG

points = " ".join(f"{x},{90 - 70 * sin(x * pi / 90) * (1 - x / 700):.1f}" for x in range(641))
curve = f'<polyline points="{points}" fill="none" stroke="#0b5c8a" stroke-width="3"/>'
SVG(f'<svg xmlns="http://www.w3.org/2000/svg" width="660" height="180">{curve}</svg>')`;

/** What JupyterLab itself asks for in vain, direct or proxied: nothing, in the current release. */
const KNOWN = [];

/** Where it appears (`seen`), and below which path it is told that it is (`base`): mostly the same. */
const places = [
  {
    name: "jupyter: JupyterLab runs a cell and a terminal at /fw2/localhost:PORT/",
    base: (port) => `/fw2/localhost:${port}/`,
    then: async (page) => {
      await picture(page);
      await runsATerminal(page);
    },
  },
  {
    name: "jupyter: JupyterLab runs a cell at /fw/NAME/",
    base: () => "/fw/lab/",
    first: (world, port) => world.forward("lab", `http://localhost:${port}/fw/lab/`),
  },
  {
    name: "jupyter: JupyterLab that was told nothing runs a cell and a terminal at /fw2/localhost:PORT/",
    base: () => "/",
    seen: (port) => `/fw2/localhost:${port}/`,
    then: runsATerminal,
  },
  {
    name: "jupyter: JupyterLab runs a cell in its own origin",
    base: () => "/",
    origin: (world) => world.own("own-lab.fn"),
    // It answers to the names of this machine only.
    first: (world, port) => world.command("forward", "add", "own-lab", `http://localhost:${port}/`, "--target-host"),
  },
];

export async function run(browser, report) {
  const names = places.map(({ name }) => name);
  if (existsSync(join(venv, "bin/jupyter-lab"))) return suite(browser, report, names, everyPlace);
  for (const name of names) if (report.wants(name)) report.skipped(name, `needs JupyterLab in ${venv}`);
}

async function everyPlace(world, { test }) {
  for (const { name, base, seen = base, origin = () => world.url, first, then } of places) {
    await test(name, async () => {
      const port = await freePort();
      await first?.(world, port);
      const lab = await Lab.begin(port, base(port));
      const visitor = await world.visitor();
      try {
        await runsACell(visitor, `${origin(world, port)}${seen(port)}lab?token=${TOKEN}`);
        await then?.(visitor.page);
        visitor.expectClean(...KNOWN);
        visitor.expectOnly(world.url, origin(world, port));
      } catch (error) {
        error.stack += `\n  JupyterLab's log ends:\n${lab.logTail()}`;
        throw error;
      } finally {
        await visitor.end();
        await lab.end();
      }
    });
  }
}

/** A JupyterLab that knows nothing of whoever runs the tests. */
export class Lab {
  static async begin(port, base) {
    const lab = new Lab();
    lab.dir = mkdtempSync(join(tmpdir(), "portreeve-jupyter-"));
    lab.log = join(lab.dir, "log");
    const work = join(lab.dir, "work");
    mkdirSync(work);
    const args = ["--no-browser", `--port=${port}`, "--ServerApp.port_retries=0", `--ServerApp.base_url=${base}`, `--ServerApp.root_dir=${work}`];
    if (process.getuid() === 0) args.push("--allow-root");
    lab.child = start(join(venv, "bin/jupyter-lab"), args, {
      cwd: work, stdout: lab.log, stderr: lab.log,
      env: {
        PATH: `${join(venv, "bin")}:${process.env.PATH}`, HOME: lab.dir, SHELL: "/bin/sh", LANG: "C.UTF-8", JUPYTER_TOKEN: TOKEN,
        JUPYTER_CONFIG_DIR: join(lab.dir, "config"), JUPYTER_DATA_DIR: join(lab.dir, "data"), JUPYTER_RUNTIME_DIR: join(lab.dir, "runtime"),
        IPYTHONDIR: join(lab.dir, "ipython"),
      },
    });
    await listening(port, 60_000);
    return lab;
  }

  logTail() {
    return readFileSync(this.log, "utf8").trimEnd().split("\n").slice(-20).map((line) => `    ${line}`).join("\n");
  }

  async end() {
    await end(this.child);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Opens JupyterLab, makes a notebook from the launcher, runs a cell, and reads what it printed. */
export async function runsACell({ page }, address) {
  page.setDefaultTimeout(40_000);
  const reply = await page.goto(address);
  same(reply.status(), 200, "the status");
  await makesANotebook(page);
}

/** The same in JupyterLab's page. */
export async function makesANotebook(page) {
  await page.locator(".jp-LauncherCard[data-category=Notebook]").first().click();
  const cell = page.locator(".jp-Notebook .jp-Cell .cm-content").first();
  await cell.click();
  await page.locator(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status=idle]").waitFor();
  // While the page is still loading, the focus may have been taken from the cell again.
  await cell.click();
  await page.keyboard.type("print(6*7)");
  await page.locator(".jp-Notebook .jp-Cell", { hasText: "print(6*7)" }).first().waitFor();
  const output = page.locator(".jp-OutputArea-output pre").first();
  await execute(page, cell, output);
  same((await output.innerText()).trim(), "42", "the output");
}

/**
 * Runs a cell until it has its output. On a busy machine JupyterLab itself forgets a cell that is run while it takes up its
 * new kernel: the kernel is then idle and the cell's prompt empty. A person would run it again.
 */
async function execute(page, cell, output) {
  for (let tries = 0; tries < 4 && !(await output.isVisible()); tries += 1) {
    await cell.click();
    await page.keyboard.press("Shift+Enter");
    await output.waitFor({ timeout: 12_000 }).catch(() => {});
  }
  await output.waitFor();
}

/** Opens a terminal from a new launcher and types into it. */
export async function runsATerminal(page) {
  const terminal = page.locator(".jp-LauncherCard:visible", { hasText: "Terminal" }).first();
  // In a cell the key would be its editor's.
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+Shift+L");
  await terminal.click();
  await page.locator(".jp-Terminal .xterm-screen").click();
  await page.keyboard.type("mkdir made-by-$((6*7))\n");
  const made = page.locator(".jp-DirListing-item", { hasText: "made-by-42" });
  await listed(page, made, 1);
  await page.locator(".jp-Terminal .xterm-screen").click();
  await page.keyboard.type("rmdir made-by-42\n");
  await listed(page, made, 0);
}

/** Until so many are in the list of files, which JupyterLab itself looks at every ten seconds only. */
const listed = (page, item, count) => until("the list of files is as it should be", async () => {
  await page.locator("[data-command='filebrowser:refresh']:visible").first().click();
  return (await item.count()) === count;
});

/** The README's picture, with PORTREEVE_KEEP_SCREENSHOTS=1; else one to look at. */
async function picture(page) {
  const kept = fileURLToPath(new URL("../../docs/images", import.meta.url));
  const where = process.env.PORTREEVE_KEEP_SCREENSHOTS === "1" ? kept : screenshots;
  mkdirSync(where, { recursive: true });
  // The first cell, once run, has made a second one.
  const cell = page.locator(".jp-Notebook .jp-Cell .cm-content").nth(1);
  await cell.click();
  await page.keyboard.insertText(CURVE);
  await execute(page, cell, page.locator(".jp-RenderedSVG"));
  // Its question whether one wants news has nothing to do with the picture.
  await page.getByRole("button", { name: "No", exact: true }).click();
  await page.locator(".Toastify__toast").waitFor({ state: "detached" });
  await page.setViewportSize(DESKTOP);
  await page.screenshot({ path: join(where, "jupyterlab.png") });
}
