// A certificate that is replaced while the portal runs, as the browser sees it.

import { X509Certificate } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

import { until } from "./children.mjs";
import { Visitor, contains, same, suite } from "./world.mjs";

const names = {
  renewed: "certificate: after SIGHUP new connections show the new one, and nobody is signed out",
};

export const run = (browser, report) => suite(browser, report, names, async (world, { visit }) => {
  const [certificate, key] = ["certificate.pem", "certificate-key.pem"].map((name) => join(world.state, name));
  const current = () => new X509Certificate(readFileSync(certificate)).raw.toString("base64");

  /** The workspace, and by which certificate this browser got it. */
  const look = async (visitor) => {
    const tools = await visitor.context.newCDPSession(visitor.page);
    await tools.send("Network.enable");
    same(await visitor.open("/"), 200, "the status");
    contains(await visitor.page.innerText("h1"), "Workspace", "the page");
    const { tableNames } = await tools.send("Network.getCertificate", { origin: world.url });
    await tools.detach();
    return tableNames[0];
  };

  await visit(names.renewed, async (visitor) => {
    const old = current();
    same(await look(visitor), old, "the certificate at first");
    // When its own one is not there any more, the portal makes another.
    rmSync(certificate);
    rmSync(key);
    world.portal.kill("SIGHUP");
    await until("the portal says so", () => world.logTail(100).includes("configuration and certificate reloaded"));
    const renewed = current();
    if (renewed === old) throw new Error("it is the same certificate");

    same(await look(visitor), old, "the certificate of a connection that was open");
    // The same cookies in another profile, which has no connection yet.
    const moved = await Visitor.begin(world, { storageState: await visitor.context.storageState() });
    same(await look(moved), renewed, "the certificate of a new connection, by the old session");
    const newcomer = await world.visitor();
    same(await look(newcomer), renewed, "the certificate of a new connection, by a new session");
    for (const one of [moved, newcomer]) {
      one.expectClean();
      await one.end();
    }
  });
});
