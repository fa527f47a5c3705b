// A cluster's portal as people see it from outside: signing in with whatever PAM asks, JupyterLab as a Slurm job, and the
// page for somebody whose application it is not. Needs the installed site of a running tests/cluster.

import { join, resolve } from "node:path";

import { until } from "./children.mjs";
import { heading, isThere, on, outside, signIn, typePassword, url } from "./cluster.mjs";
import { runsACell } from "./jupyter.mjs";
import { Visitor, contains, same } from "./world.mjs";

const made = resolve(process.env.PORTREEVE_NODE_MODULES, "../..");

const names = {
  password: "site: a name and a password sign in, and a wrong one says so",
  jupyter: "site: JupyterLab as alice's Slurm job on c1, opened from outside, and listed with its job",
  refused: "site: bob is not shown alice's JupyterLab, and reads why",
  code: "site: a one-time code is asked for on a page of its own",
  expired: "site: an expired password is changed on the way in",
  address: "site: an address from a terminal says whom it signs in",
};

export async function run(_, report, launched) {
  if (!report.wants(...Object.values(names))) return;
  if (!isThere(report, Object.values(names))) return;
  const browser = await outside(launched);
  const site = { browser, url, logTail: () => "" };
  const meet = (name, body, known = []) => report.test(name, async () => {
    const visitor = await Visitor.begin(site);
    try {
      await body(visitor);
      visitor.expectClean(...known);
      visitor.expectOnly(url);
    } catch (error) {
      error.stack += `\n${await on("login", "root", "journalctl --no-pager -o cat -n 25 -u 'portreeve*'")}`;
      throw error;
    } finally {
      await visitor.end();
    }
  });
  try {
    await signingIn(meet);
    await jupyter(meet);
  } finally {
    await browser.close();
  }
}

async function signingIn(meet) {
  await meet(names.password, async (visitor) => {
    const { page } = visitor;
    await visitor.open("/fw2/c1:1024/");
    same(await heading(page), "Sign in", "the page");
    await visitor.pictures("site-sign-in");
    await typePassword(page, "alice", "wrong");
    contains(await page.getByRole("alert").innerText(), "is wrong", "what is said");
    same(await page.getByLabel("Name").inputValue(), "alice", "the name is still there");
    await visitor.pictures("site-sign-in-wrong");
    await typePassword(page, "alice");
    await page.waitForURL(`${url}/fw2/c1:1024/`);
    await visitor.open("/");
    same(await heading(page), "Workspace", "the page");
    // The page of an application that is not up yet asks whether it is.
  }, [/^503: HEAD /]);

  await meet(names.code, async (visitor) => {
    const { page } = visitor;
    await on("login", "root", "cp /etc/pam.d/portreeve /root/pam.kept && cp /etc/pam.d/portreeve-otp /etc/pam.d/portreeve");
    try {
      await visitor.open("/");
      await typePassword(page, "bob");
      const asked = page.getByLabel(/code/i);
      await asked.waitFor();
      await visitor.pictures("site-code");
      await asked.fill(await on("login", "root", "oathtool --totp --base32 PORTREEVECLUSTER"));
      await page.getByRole("button", { name: "Go on" }).click();
      await page.getByText("bob", { exact: true }).waitFor();
      same(await heading(page), "Workspace", "the page");
    } finally {
      await on("login", "root", "cp /root/pam.kept /etc/pam.d/portreeve");
    }
  });

  await meet(names.expired, async (visitor) => {
    const { page } = visitor;
    await on("login", "root", "cp -p /etc/shadow /root/shadow.kept");
    try {
      await visitor.open("/");
      await typePassword(page, "dave");
      // One question after the other, as PAM asks them: the old one, perhaps, then the new one twice.
      for (let step = 0; step < 5 && (await heading(page)) === "Sign in"; step += 1) {
        if (step === 0) await visitor.pictures("site-expired");
        for (const field of await page.locator("input[name=answer]").all()) {
          const label = await field.locator("xpath=..").innerText();
          await field.fill(/current/i.test(label) ? "dave-password" : "Quite-another-1-of-his");
        }
        await page.getByRole("button", { name: "Go on" }).click();
        await page.waitForLoadState();
      }
      if ((await heading(page)) === "You are signed in") await page.getByRole("link", { name: "Go on" }).click();
      await page.getByText("dave", { exact: true }).waitFor();
    } finally {
      await on("login", "root", "cp -p /root/shadow.kept /etc/shadow");
    }
  });

  await meet(names.address, async (visitor) => {
    const { page } = visitor;
    const address = await on("login", "carol", "portreeve login");
    await page.goto(address);
    same(await heading(page), "Sign in as carol?", "the page");
    await visitor.pictures("site-confirm");
    await page.getByRole("button", { name: "Sign in as carol" }).click();
    await page.getByText("carol", { exact: true }).waitFor();
    same(new URL(page.url()).pathname, "/", "the address");
  });
}

async function jupyter(meet) {
  const python = "/opt/portreeve/tests/venv/bin/python";
  if ((await on("c1", "alice", `${python} -c 'import jupyterlab' && echo yes || echo no`)) !== "yes") {
    // As for the other suites: it says so by itself.
    for (const name of [names.jupyter, names.refused]) await meet(name, () => { throw new Error(`needs JupyterLab in ${made}/venv`); });
    return;
  }
  const port = 20_000 + Math.floor(Math.random() * 10_000);
  const base = `/fw2/c1:${port}/`;
  const token = "of-the-test-and-of-no-worth";
  const lab = `${python} -m jupyterlab --no-browser --ip=0.0.0.0 --port=${port} --ServerApp.port_retries=0 --ServerApp.base_url=${base}`;
  const script = `mkdir -p lab && cd lab && JUPYTER_TOKEN=${token} exec ${lab} --ServerApp.allow_remote_access=True`;
  const job = await on("login", "alice", `cd && sbatch --parsable --nodelist=c1 --output=lab.log --wrap '${script}'`);
  try {
    await until("JupyterLab listens", () => on("c1", "root", `ss -ltn | grep -c :${port}`), 150_000);
    await meet(names.jupyter, async (visitor) => {
      await signIn(visitor, "alice");
      const row = visitor.page.getByRole("row", { name: `c1:${port} python` });
      await row.waitFor();
      contains(await row.innerText(), job, "the job's number beside it");
      await visitor.pictures("site-workspace");
      await runsACell(visitor, `${url}${base}lab?token=${token}`);
      await visitor.page.screenshot({ path: join(made, "screenshots", "site-jupyter.png") });
    });
    await meet(names.refused, async (visitor) => {
      await signIn(visitor, "bob");
      same(await visitor.open(`${base}lab`), 403, "the status");
      same(await heading(visitor.page), "You may not open this application", "the page");
      await visitor.pictures("site-refused");
    });
  } catch (error) {
    error.stack += `\n${await on("login", "alice", "tail -n 30 ~/lab.log")}`;
    throw error;
  } finally {
    await on("login", "alice", `scancel ${job}`);
  }
}
