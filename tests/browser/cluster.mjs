// The test cluster's site, seen by a browser outside of it.

import { execFile } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

import { until } from "./children.mjs";
import { chromium } from "./playwright.mjs";

const cluster = process.env.PORTREEVE_CLUSTER;
const program = resolve(import.meta.dirname, "../cluster");
const config = "/etc/portreeve/portreeve.toml";
const nodes = ["login", "c1", "c2"];

/** The portal's address, a name for applications alone, and the domain below which each has its own. */
export const url = "https://portal.cluster.example";
export const shared = "https://apps.cluster.example";
export const domain = "apps.cluster.example";

/** Skips these tests, aloud, where there is no cluster with Portreeve on it. */
export function isThere(report, names) {
  if (cluster && existsSync(join(cluster, "ca.pem"))) return true;
  for (const name of names) if (report.wants(name)) report.skipped(name, "needs a cluster with Portreeve on it");
  return false;
}

/** Runs a shell on a node. */
export async function on(node, user, script) {
  // A bash whose standard input is a socket, as Node's pipes are, takes itself for a remote shell and reads ~/.bashrc.
  const args = ["--dir", cluster, "exec", node, user, "bash", "--norc", "-c", script];
  const { stdout } = await promisify(execFile)(program, args, { maxBuffer: 1 << 24 });
  return stdout.trim();
}

/** A Chromium in the network of `outside`, which knows the portal's name. */
export async function outside(launched) {
  const dir = mkdtempSync(join(tmpdir(), "portreeve-outside-"));
  process.once("exit", () => rmSync(dir, { recursive: true, force: true }));
  const [pid] = readFileSync(join(cluster, "nodes/outside"), "utf8").split(" ");
  const wrapper = join(dir, "chromium");
  writeFileSync(wrapper, `#!/bin/sh\nexec nsenter --net=/proc/${pid}/ns/net "${process.env.PORTREEVE_CHROMIUM}" "$@"\n`);
  chmodSync(wrapper, 0o755);
  const args = [...launched, "--host-resolver-rules=MAP *.cluster.example 10.78.0.1"];
  return chromium.launch({ executablePath: wrapper, headless: true, args, chromiumSandbox: false });
}

export const heading = (page) => page.locator("h1").innerText();

export async function typePassword(page, user, password = `${user}-password`) {
  await page.getByLabel("Name").fill(user);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).first().click();
}

export async function signIn(visitor, user) {
  await visitor.open("/");
  await typePassword(visitor.page, user);
  await visitor.page.getByText(user, { exact: true }).waitFor();
}

/** The site with more lines in `[portal]` while `body` runs. */
export async function configured(lines, body) {
  const clean = "/^apps_domain/d; /^apps_url/d; /^foreign_applications/d";
  const restart = async () => {
    await on("login", "root", "systemctl reset-failed; systemctl restart portreeve-portal");
    await Promise.all(nodes.map((node) => on(node, "root", "systemctl restart portreeve-agent")));
    await until("all agents are back", async () => {
      const said = await on("login", "root", "curl -sS --unix-socket /run/portreeve/metrics.sock http://localhost/nodes");
      return nodes.every((node) => JSON.parse(said).some((one) => one.node === node && one.agent === "connected"));
    }, 60_000);
  };
  const added = lines.map((line) => `\\n${line.replaceAll("/", "\\/")}`).join("");
  await on("login", "root", `sed -i '${clean}; s/^url = .*/&${added}/' ${config}`);
  try {
    await restart();
    await body();
  } finally {
    await on("login", "root", `sed -i '${clean}' ${config}`);
    await restart();
  }
}
