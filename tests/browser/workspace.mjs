// The workspace on a cluster, as people use it from outside: an application from its form, a program compiled and run, a terminal,
// and nothing of it for anybody else. Needs the installed site of a running tests/cluster.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { heading, isThere, on, outside, signIn, url } from "./cluster.mjs";
import { makesANotebook } from "./jupyter.mjs";
import { Visitor, contains, same, screenshots } from "./world.mjs";

const names = {
  jupyter: "workspace: JupyterLab from its form becomes ready, runs a cell that reaches two nodes, and is ended",
  compile: "workspace: a source is uploaded, compiled with MPI, run on two nodes, and run again",
  terminal: "workspace: a terminal on a compute node is the same one after the connection was cut",
  ipt: "workspace: the parallelization dialog is answered in the browser, and what it writes is there",
  wrong: "workspace: what does not fit is said beside its field, and nothing that was typed is lost",
  others: "workspace: bob sees nothing of alice's",
};

const JUPYTER = 120_000;
const MPI = `#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, length;
    char name[MPI_MAX_PROCESSOR_NAME];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Get_processor_name(name, &length);
    printf("rank %d on %s\\n", rank, name);
    MPI_Finalize();
}
`;

export async function run(_, report, launched) {
  if (!report.wants(...Object.values(names))) return;
  if (!isThere(report, Object.values(names))) return;
  const browser = await outside(launched);
  const site = { browser, url, logTail: () => "" };
  const meet = (name, user, body, known = []) => report.test(name, async () => {
    const visitor = await Visitor.begin(site);
    try {
      await signIn(visitor, user);
      await body(visitor);
      visitor.expectClean(...known);
      visitor.expectOnly(url);
    } catch (error) {
      const text = await visitor.page.locator("main, body").first().innerText().catch(() => "");
      error.stack += `\n  the page says:\n${text.slice(0, 3000)}\n${await on("login", "root", "journalctl --no-pager -o cat -n 25 -u 'portreeve*'")}`;
      throw error;
    } finally {
      await visitor.end();
    }
  });
  try {
    await jupyter(meet);
    await compile(meet);
    await terminal(meet);
    await ipt(meet);
    await wrong(meet);
    await others(meet);
  } finally {
    await on("login", "root", "scancel --user alice; scancel --user bob");
    await browser.close();
  }
}

/** Opens an application's form from the first page. */
async function form({ page }, name) {
  await page.goto(`${url}/`);
  await page.locator(`.tiles a[href="/apps/${name}"]`).click();
  await page.getByRole("button", { name: "Start", exact: true }).waitFor();
}

const field = (page, name) => page.locator(`[name="f.${name}"]`);

const state = (page) => page.locator("h1 .state");
const start = (page) => page.getByRole("button", { name: "Start", exact: true }).click();
const until = (page, word, timeout = 60_000) => state(page).filter({ hasText: word }).waitFor({ timeout });

/** The application in the window that *Open* opens. */
async function opened(visitor) {
  const popup = visitor.context.waitForEvent("page");
  await visitor.page.getByRole("link", { name: "Open", exact: true }).click();
  const page = await popup;
  await page.waitForLoadState();
  return page;
}

async function end(page) {
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "End it" }).click();
  await until(page, "ended");
}

async function jupyter(meet) {
  await meet(names.jupyter, "alice", async (visitor) => {
    const { page } = visitor;
    await visitor.pictures("workspace");
    await form(visitor, "jupyter");
    await page.getByLabel("Python environment").fill("/opt/portreeve/tests/venv");
    await page.getByLabel("Nodes", { exact: true }).fill("2");
    await visitor.pictures("workspace-form");
    await page.getByRole("button", { name: "Show what will run" }).click();
    contains(await page.locator("#shown").innerText(), "--nodes=2", "what will run");
    await visitor.pictures("workspace-preview");
    await start(page);
    await state(page).waitFor();
    await visitor.pictures("workspace-job-starting");
    await until(page, "ready", JUPYTER);
    await visitor.pictures("workspace-job-ready");
    const lab = await opened(visitor);
    lab.setDefaultTimeout(40_000);
    await makesANotebook(lab);
    await lab.locator(".jp-Notebook .jp-Cell .cm-content").nth(1).click();
    await lab.keyboard.insertText("!srun hostname | sort");
    await lab.keyboard.press("Shift+Enter");
    await lab.locator(".jp-OutputArea-output pre", { hasText: /c1\s+c2/ }).waitFor();
    await lab.close();
    await page.goto(`${url}/jobs`);
    await page.getByRole("row", { name: /Jupyter|jupyter/ }).first().waitFor();
    await visitor.pictures("workspace-queue");
    await page.goBack();
    await end(page);
    await visitor.pictures("workspace-job-ended");
    await page.goto(`${url}/history`);
    await page.getByRole("link", { name: "Jupyter" }).first().waitFor();
    await visitor.pictures("workspace-history");
    // JupyterLab itself asks whether a name is free.
  }, [/^404: GET .*\/api\/contents\/Untitled/]);
}

async function compile(meet) {
  await meet(names.compile, "alice", async (visitor) => {
    const { page } = visitor;
    await on("login", "alice", "rm -rf ~/built && mkdir ~/built && touch ~/built/other.c");
    await form(visitor, "compile");
    await field(page, "compiler").selectOption("mpicc");
    // Names that are there are suggested.
    await page.getByLabel("Main source file").fill("built/");
    await page.locator("#list-source option[value='built/other.c']").waitFor({ state: "attached" });
    await page.getByLabel("Work in").fill("built");
    await page.locator("[data-upload='f.source'] input").setInputFiles({ name: "who is.c", mimeType: "text/plain", buffer: Buffer.from(MPI) });
    await page.getByText("It is /home/alice/built/who is.c now.").waitFor();
    same(await page.getByLabel("Main source file").inputValue(), "/home/alice/built/who is.c", "the field");
    await page.getByLabel("Name of the program").fill("who");
    await visitor.pictures("workspace-compile");
    await start(page);
    await until(page, "ended");
    contains(await page.locator("pre[data-follow]").first().innerText(), "Built /home/alice/built/who", "the output");
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "who", exact: true }).click()]);
    same(file.suggestedFilename(), "who", "the file's name");
    contains(readFileSync(await file.path(), "latin1"), "ELF", "the file");

    await form(visitor, "run");
    await page.getByLabel("Program", { exact: true }).fill("built/who");
    await field(page, "launcher").selectOption("mpirun");
    await page.getByLabel("Nodes", { exact: true }).fill("2");
    await page.getByLabel("Tasks", { exact: true }).fill("2");
    await visitor.pictures("workspace-run");
    await start(page);
    await until(page, "ended");
    const output = page.locator("pre[data-follow]").first();
    await output.filter({ hasText: "rank 0 on c1" }).filter({ hasText: "rank 1 on c2" }).waitFor();
    await visitor.pictures("workspace-job-output");
    await page.getByRole("link", { name: "Run again" }).click();
    same(await page.getByLabel("Program", { exact: true }).inputValue(), "built/who", "the field");
    same(await field(page, "launcher").inputValue(), "mpirun", "the choice");
    await start(page);
    await until(page, "ended");
    await page.goto(`${url}/history`);
    await page.getByLabel("Words").fill("built/who");
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "Run" }).nth(1).waitFor();
    // What is a download is no page.
  }, [/^request failed: GET .*\/api\/v1\/files\/.*: net::ERR_ABORTED/]);
}

const screen = (page) => page.locator(".xterm-screen").first();
const shows = (page, text) => page.locator(".xterm-rows > div").filter({ hasText: text }).first().waitFor();

async function terminal(meet) {
  await meet(names.terminal, "alice", async (visitor) => {
    const { page } = visitor;
    await form(visitor, "terminal");
    await start(page);
    await until(page, "ready");
    const shell = await opened(visitor);
    await screen(shell).click();
    await shell.keyboard.type("echo on-$(hostname)-$((6*7)); mark=kept\n");
    await shows(shell, "on-c1-42");
    await visitor.context.setOffline(true);
    await shell.waitForTimeout(300);
    await visitor.context.setOffline(false);
    await shell.reload();
    await shows(shell, "on-c1-42");
    await screen(shell).click();
    await shell.keyboard.type("echo it-is-$mark\n");
    await shows(shell, "it-is-kept");
    await shell.screenshot({ path: join(screenshots, "workspace-terminal.png") });
    await shell.keyboard.type("exit\n");
    await shell.close();
    await until(page, "ended");
  }, [/^WebSocket|net::ERR_INTERNET_DISCONNECTED/]);
}

async function ipt(meet) {
  await meet(names.ipt, "alice", async (visitor) => {
    const { page } = visitor;
    const source = "int main(void) {\n  int i, sum = 0;\n  for (i = 0; i < 10; i++) sum += i;\n  return sum;\n}\n";
    const tool = readFileSync(join(import.meta.dirname, "parallelize.py"), "base64");
    await on("login", "alice", `mkdir -p ~/ipt && cd ~/ipt && printf '%s' '${source}' >sum.c && rm -f rose_* && echo '${tool}' | base64 -d >tool.py`);
    await form(visitor, "ipt");
    await page.getByLabel("Command").fill("python3 /home/alice/ipt/tool.py");
    await page.getByLabel("Program to parallelize").fill("ipt/sum.c");
    await page.getByLabel("Work in").fill("ipt");
    await start(page);
    await until(page, "ready");
    const dialog = await opened(visitor);
    await screen(dialog).click();
    const said = [["3 CUDA", "2"], ["Which function", "1"], ["for loop you are", "y"], ["a reduction", "y"], ["Which operation", "+"],
      ["Which variable", "sum"], ["private variables", "n"]];
    for (const [question, answer] of said) {
      await shows(dialog, question);
      await dialog.keyboard.type(`${answer}\n`);
    }
    await shows(dialog, "Wrote rose_sum_OpenMP.c");
    await dialog.screenshot({ path: join(screenshots, "workspace-ipt.png") });
    await dialog.close();
    await until(page, "ended");
    contains(await on("login", "alice", "cat ~/ipt/rose_sum_OpenMP.c"), "#pragma omp parallel for reduction(+:sum)", "what it wrote");
  });
}

async function wrong(meet) {
  await meet(names.wrong, "alice", async (visitor) => {
    const { page } = visitor;
    await form(visitor, "run");
    await page.getByLabel("Program", { exact: true }).fill("no/such $(program)");
    await page.getByLabel("Arguments").fill("'kept \"as it is\"'");
    await start(page);
    const alert = page.getByRole("alert").filter({ hasText: "there is no" });
    contains(await alert.innerText(), "/home/alice/no/such $(program)", "what is said");
    same(await page.getByLabel("Arguments").inputValue(), "'kept \"as it is\"'", "the field");
    same(await page.getByLabel("Program", { exact: true }).getAttribute("aria-invalid"), "true", "the field is marked");
    await visitor.pictures("workspace-wrong");
    // Where nothing is, nothing is suggested.
  }, [/^404: GET .*\/api\/v1\/files\//]);
}

async function others(meet) {
  await meet(names.others, "bob", async (visitor) => {
    const { page } = visitor;
    for (const address of ["/", "/jobs", "/history"]) {
      await page.goto(`${url}${address}`);
      same(await page.locator("main a[href^='/jobs/']").count(), 0, `jobs on ${address}`);
    }
    await visitor.pictures("workspace-empty-history");
    const id = await on("login", "alice", "ls ~/.local/state/portreeve/jobs | head -n 1");
    same(await visitor.open(`/jobs/${id}`), 404, "the status");
    same(await heading(page), "There is nothing at this address", "the page");
  });
}
