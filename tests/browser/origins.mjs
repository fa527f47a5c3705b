// Applications must not attack their neighbours: what a page in one application's own origin can reach of another's,
// and of the portal.

import { live } from "./apps.mjs";
import { same, suite } from "./world.mjs";

const names = {
  dance: "origins: an application's own origin is entered by way of the portal, signed in or not",
  bound: "origins: the entry to an application's origin is good for one browser, once",
  neighbour: "origins: a page can't read its neighbour's data, nor make it hear a request",
  portal: "origins: a page can't read the portal, frame it, or sign its visitor out",
  socket: "origins: a page can't open its neighbour's WebSocket",
  link: "origins: a link to a neighbour works",
};

export const run = (browser, report) => suite(browser, report, names, async (world, { test }) => {
  const [one, other] = [await live(), await live()];
  const own = (app) => world.own(`localhost-${app.port}`);

  /** A test by a visitor who is at one application's own origin, and was at the other's too. */
  const settled = (name, run) => test(name, async () => {
    const visitor = await world.visitor();
    await visitor.open(`${own(other)}/`);
    await visitor.open(`${own(one)}/`);
    [one, other].forEach((app) => (app.seen.length = 0));
    await run(visitor);
    await visitor.end();
  });

  await test(names.dance, async () => {
    const visitor = await world.stranger();
    const address = `${own(one)}/headers?a=b%20c&next=/x`;
    await visitor.open(address);
    same(await visitor.page.innerText("h1"), "Sign in", "the page without a session");
    same(new URL(visitor.page.url()).origin, world.url, "its origin");
    await visitor.page.goto(await world.login());
    same(visitor.page.url(), address, "the address after signing in");
    // The browser asks for an icon of its own accord.
    same(one.seen.filter((r) => r.url !== "/favicon.ico").at(-1).url, "/headers?a=b%20c&next=/x", "what the application was asked for");
    // Signed in already: no page between.
    await visitor.open(`${own(other)}/data`);
    same(visitor.page.url(), `${own(other)}/data`, "the address of the second application");
    const cookies = (await visitor.context.cookies()).map((c) => `${c.domain} ${c.name} ${c.httpOnly}`).sort();
    same(cookies.join("; "), ["localhost", new URL(own(one)).hostname, new URL(own(other)).hostname]
      .map((host) => `${host} __Host-portreeve true`).sort().join("; "), "the cookies");
    visitor.expectOnly(world.url, own(one), own(other));
    await visitor.end();
  });

  await test(names.bound, async () => {
    const visitor = await world.visitor();
    const entries = [];
    visitor.context.on("request", (request) => {
      if (request.url().startsWith(`${own(one)}/-/enter?`)) entries.push(request.url());
    });
    await visitor.open(`${own(one)}/`);
    same(entries.length, 1, "entries");
    const thief = await world.stranger();
    same((await thief.page.goto(entries[0])).status(), 403, "the same entry in another browser");
    same((await thief.context.cookies()).length, 0, "the other browser's cookies");
    same((await visitor.page.goto(entries[0])).status(), 403, "the same entry again");
    // A fresh entry, that its own browser never used, is worth nothing in another either.
    const open = `${world.url}/-/open?host=${new URL(own(one)).hostname}&state=${"A".repeat(43)}&next=%2F`;
    same((await visitor.page.goto(open)).status(), 403, "an entry for a browser that did not ask for it");
    await visitor.end();
    await thief.end();
  });

  await settled(names.neighbour, async (visitor) => {
    const tried = await visitor.page.evaluate(async (theirs) => {
      const outcome = (promise) => promise.then((r) => `${r.type} ${r.status}`, () => "refused");
      const loads = (element, at) => new Promise((done) => {
        element.onload = () => done("loaded");
        element.onerror = () => done("refused");
        Object.assign(element, at);
        document.documentElement.append(element);
      });
      return {
        cors: await outcome(fetch(`${theirs}/data`, { credentials: "include" })),
        noCors: await outcome(fetch(`${theirs}/data`, { credentials: "include", mode: "no-cors" })),
        post: await outcome(fetch(`${theirs}/data`, { method: "POST", credentials: "include", mode: "no-cors", body: "x=1" })),
        script: await loads(document.createElement("script"), { src: `${theirs}/data` }),
        image: await loads(new Image(), { src: `${theirs}/data` }),
        frame: await loads(document.createElement("iframe"), { src: `${theirs}/data` }),
      };
    }, own(other));
    same(tried.cors, "refused", "fetch");
    same(tried.script, "refused", "a script");
    same(other.seen.map((r) => `${r.method} ${r.url}`).join(), "", "what the neighbour heard");
  });

  await settled(names.portal, async (visitor) => {
    const tried = await visitor.page.evaluate(async (portal) => {
      const outcome = (promise) => promise.then((r) => `${r.type} ${r.status}`, () => "refused");
      const frame = document.createElement("iframe");
      frame.src = `${portal}/`;
      document.documentElement.append(frame);
      await new Promise((done) => (frame.onload = done));
      let inside = "unreadable";
      try {
        inside = frame.contentDocument === null ? inside : frame.contentDocument.body.innerText;
      } catch { /* as it should be */ }
      return {
        inside,
        read: await outcome(fetch(`${portal}/`, { credentials: "include" })),
        signOut: await outcome(fetch(`${portal}/-/sign-out`, { credentials: "include", mode: "no-cors" })),
        post: await outcome(fetch(`${portal}/-/sign-out`, { method: "POST", credentials: "include", mode: "no-cors" })),
        application: await outcome(fetch(`${portal}/fw2/x`, { credentials: "include" })),
      };
    }, world.url);
    same(tried.read, "refused", "fetch of the workspace");
    same(tried.application, "refused", "fetch of an application's path form");
    same(tried.inside, "unreadable", "the portal in a frame");
    // Chromium shows a page of its own where a frame was refused.
    const shown = visitor.page.frames().at(-1).url();
    if (shown.startsWith("https:")) throw new Error(`the portal is shown in a frame: ${shown}`);
    // A form that submits itself is a navigation: the cookie comes along with none but a GET.
    for (const method of ["get", "post"]) {
      await visitor.open(`${own(one)}/`);
      await visitor.page.evaluate(([portal, method]) => {
        const form = Object.assign(document.createElement("form"), { action: `${portal}/-/sign-out`, method });
        document.documentElement.append(form);
        form.submit();
      }, [world.url, method]);
      await visitor.page.waitForURL(`${world.url}/-/sign-out*`);
      same(await visitor.page.innerText("h1"), "Another site's page asked for this", `a form (${method}) that signs out`);
    }
    await visitor.open("/");
    same((await visitor.page.innerText("h1")).split(" ")[0], "Workspace", "the page: the session lives");
  });

  await settled(names.socket, async (visitor) => {
    const outcomes = await visitor.page.evaluate((addresses) => Promise.all(addresses.map((address) => new Promise((done) => {
      const socket = new WebSocket(address);
      socket.onopen = () => done("open");
      socket.onclose = () => done("refused");
    }))), [`${own(other)}/socket`, `${world.url}/fw2/localhost:${other.port}/socket`].map((a) => a.replace("https", "wss")));
    same(outcomes.join(), "refused,refused", "the neighbour's WebSocket");
    same(other.seen.length, 0, "requests that the neighbour heard");
  });

  await settled(names.link, async (visitor) => {
    await visitor.page.evaluate((theirs) => {
      document.body.innerHTML = `<a href="${theirs}/data">neighbour</a>`;
    }, own(other));
    await visitor.page.getByText("neighbour").click();
    await visitor.page.waitForURL(`${own(other)}/data`);
    same(await visitor.page.innerText("body"), "secret data", "the neighbour's page");
    visitor.expectClean();
  });

  await one.end();
  await other.end();
});
