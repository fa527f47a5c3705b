// Runs every suite in one Chromium, one test after the other, and counts.

import { chromium } from "./playwright.mjs";
import { Report } from "./report.mjs";
import { endChildren } from "./children.mjs";
import * as attacks from "./attacks.mjs";
import * as certificate from "./certificate.mjs";
import * as files from "./files.mjs";
import * as jupyter from "./jupyter.mjs";
import * as live from "./live.mjs";
import * as origins from "./origins.mjs";
import * as pages from "./pages.mjs";
import * as referees from "./referees.mjs";
import * as rewriting from "./rewriting.mjs";
import * as signIn from "./sign_in.mjs";
import * as site from "./site.mjs";
import * as terminal from "./terminal.mjs";
import * as uploads from "./uploads.mjs";
import * as workspace from "./workspace.mjs";

const launched = [
  "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // What `ignoreHTTPSErrors` leaves out: the scripts of service workers.
  "--ignore-certificate-errors",
];
// Chromium's own sandbox works neither for root nor in most containers; nothing but these tests' pages is shown.
const chromiumSandbox = false;

const report = new Report(process.argv[2] ?? "");
const browser = await chromium.launch({
  executablePath: process.env.PORTREEVE_CHROMIUM, headless: true, args: launched, chromiumSandbox,
});
const patience = process.env.PORTREEVE_TESTS_ALL === "1" ? 25 : 15;
const overall = setTimeout(async () => {
  report.failed("all", `not done after ${patience} minutes`);
  await endChildren();
  process.exit(report.close());
}, patience * 60_000);
try {
  for (const [name, suite] of Object.entries({ signIn, certificate, pages, files, uploads, origins, rewriting, live, jupyter, referees, terminal, site, workspace, attacks })) {
    await suite.run(browser, report, launched).catch((error) => report.failed(name, error.stack));
  }
} finally {
  clearTimeout(overall);
  await browser.close();
  await endChildren();
}
process.exit(report.close());
