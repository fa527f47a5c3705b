// Signing in and out as a person does it.

import { end, freePort } from "./children.mjs";
import { contains, same, suite } from "./world.mjs";

const names = {
  deep: "sign-in: a deep link leads to the sign-in page, and the printed address back to it",
  first: "sign-in: the address printed at the start opens the workspace",
  paste: "sign-in: the printed address can be pasted, and leads to what was wanted",
  used: "sign-in: an address used twice says so, and what to do",
  altered: "sign-in: an altered address says so, and what to do",
  away: "sign-in: nobody is sent to another site",
  out: "sign-in: the sign-out button ends the session, in every tab",
};
const refused = {
  expired: "sign-in: an address that is too old says so, and what to do",
  many: "sign-in: after many wrong codes one has to wait",
};

export async function run(browser, report) {
  await suite(browser, report, names, inAndOut);
  // In a portal of its own: wrong codes are counted by address, and everybody here has the same.
  await suite(browser, report, refused, notIn, '[session]\ncode_lifetime = "1s"\n');
}

const heading = (page) => page.locator("h1").innerText();

async function inAndOut(world, { test, visit, meet }) {
  const port = await freePort();
  const files = await world.fileServer(port);

  await meet(names.first, async (visitor) => {
    await visitor.page.goto(world.firstSignIn);
    same(visitor.page.url(), `${world.url}/`, "the address");
    contains(await heading(visitor.page), "Workspace", "the page");
  });

  await meet(names.deep, async (visitor) => {
    const deep = `/fw2/localhost:${port}/?x=%20y&z=1`;
    await visitor.open(deep);
    same(await heading(visitor.page), "Sign in", "the page");
    await visitor.pictures("sign-in");
    await visitor.page.goto(await world.login());
    same(visitor.page.url(), world.url + deep, "the address after signing in");
    contains(await visitor.page.content(), "Here I am.", "the application's page");
    visitor.expectOnly(world.url);
    const cookies = await visitor.context.cookies();
    same(cookies.map((c) => c.name).join(), "__Host-portreeve", "the cookies left");
    const [{ httpOnly, secure, sameSite, path }] = cookies;
    same(`${httpOnly} ${secure} ${sameSite} ${path}`, "true true Lax /", "the cookie");
  });

  await meet(names.paste, async (visitor) => {
    const deep = `/fw2/localhost:${port}/`;
    await visitor.open(deep);
    await visitor.page.getByLabel("Address or code").fill(` ${await world.login()} `);
    await visitor.page.keyboard.press("Enter");
    await visitor.page.waitForURL(world.url + deep);
  });

  await test(names.used, async () => {
    const visitor = await world.visitor();
    const address = await world.login();
    await visitor.page.goto(address);
    const other = await world.stranger();
    same((await other.page.goto(address)).status(), 403, "the status");
    same(await heading(other.page), "This address was already used", "the page");
    contains(await other.page.innerText("main"), "portreeve login", "what to do");
    await other.pictures("code-used");
    same((await other.context.cookies()).length, 0, "cookies of a refused code");
    other.expectClean();
    await visitor.end();
    await other.end();
  });

  await meet(names.altered, async (visitor) => {
    const address = await world.login();
    const last = address.at(-1) === "A" ? "Q" : "A";
    same((await visitor.page.goto(address.slice(0, -1) + last)).status(), 403, "the status");
    contains(await heading(visitor.page), "does not sign anybody in", "the page");
    contains(await visitor.page.innerText("main"), "portreeve login", "what to do");
    await visitor.open("/");
    same(await heading(visitor.page), "Sign in", "the page after it");
  });

  await test(names.away, async () => {
    for (const next of ["//elsewhere.example/", "https://elsewhere.example/", "/\\elsewhere.example", "/-/sign-out"]) {
      const visitor = await world.stranger();
      await visitor.open(`/-/sign-in?next=${encodeURIComponent(next)}`);
      await visitor.page.getByLabel("Address or code").fill(await world.login());
      await visitor.page.keyboard.press("Enter");
      await visitor.page.waitForURL(`${world.url}/`);
      contains(await heading(visitor.page), "Workspace", `the page after next=${next}`);
      visitor.expectOnly(world.url);
      await visitor.end();
    }
  });

  await visit(names.out, async (visitor) => {
    const second = await visitor.context.newPage();
    await second.goto(`${world.url}/fw2/localhost:${port}/`);
    await visitor.page.getByRole("button", { name: "Sign out" }).click();
    await visitor.page.waitForURL(`${world.url}/-/sign-in`);
    same(await heading(visitor.page), "Sign in", "the page");
    await second.reload();
    same(await heading(second), "Sign in", "the other tab, reloaded");
    await visitor.page.goBack();
    await visitor.page.waitForLoadState();
    same(await heading(visitor.page), "Sign in", "the page before, by the back button");
    // The page's own events end with the session, perhaps before the page does.
  }, { known: [/\/api\/v1\/events: net::ERR_/] });

  await end(files);
}

async function notIn(world, { meet }) {
  await meet(refused.expired, async (visitor) => {
    const address = await world.login();
    // Time is what this is about, and the portal counts whole seconds.
    await new Promise((done) => setTimeout(done, 2100));
    same((await visitor.page.goto(address)).status(), 403, "the status");
    same(await heading(visitor.page), "This address is too old", "the page");
    contains(await visitor.page.innerText("main"), "portreeve login", "what to do");
  });

  await meet(refused.many, async (visitor) => {
    const statuses = [];
    while (statuses.length < 11 && statuses.at(-1) !== 429) statuses.push(await visitor.open("/-/enter?code=wrong"));
    // The one that was too old may count as well.
    if (!/^(403,){9,10}429$/.test(statuses.join())) throw new Error(`the statuses: ${statuses}`);
    same(await heading(visitor.page), "Too many wrong codes", "the page");
    await visitor.pictures("too-many-codes");
  });
}
