// What stays open: server-sent events and WebSockets, over the HTTP/2 connection that Chromium uses.

import { live } from "./apps.mjs";
import { until } from "./children.mjs";
import { contains, same, suite } from "./world.mjs";

const forms = ["path form", "forward", "own origin"];
const events = (form) => `live: events come one by one (${form})`;
const socket = (form) => `live: a WebSocket echoes over HTTP/2 (${form})`;
const names = {
  out: "live: signing out ends WebSockets and events within a second",
  headers: "live: the application sees no cookie of the portal's, and sets none",
};
const all = [...forms.map(events), ...forms.map(socket), ...Object.values(names)];

export const run = (browser, report) => suite(browser, report, all, async (world, { test, visit }) => {
  const app = await live();
  await world.forward("live", `http://localhost:${app.port}`);
  const where = {
    "path form": `${world.url}/fw2/localhost:${app.port}/`,
    forward: `${world.url}/fw/live/`,
    "own origin": `${world.own(`localhost-${app.port}`)}/`,
  };

  for (const form of forms) {
    await visit(events(form), async (visitor) => {
      await visitor.open(where[form]);
      const ticks = await visitor.page.evaluate(() => new Promise((done, refuse) => {
        const source = new EventSource("events");
        const heard = [];
        source.onerror = () => refuse(new Error("the stream broke"));
        source.onmessage = (event) => {
          heard.push([event.data, performance.now()]);
          if (heard.length === 3) {
            source.close();
            done(heard);
          }
        };
      }));
      same(ticks.map(([data]) => data).join(), "tick 1,tick 2,tick 3", "the events");
      const apart = ticks[2][1] - ticks[0][1];
      if (apart < 250) throw new Error(`the events came in one lump: ${apart} ms apart`);
      const spoken = await visitor.page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
      same(spoken, "h2", "the browser speaks");
      await until("the application hears that the browser left", () => app.seen.filter((r) => r.url === "/events").every((r) => r.destroyed));
      // Closing an event source is a request that did not end.
    }, { known: [/request failed: GET .*\/events: net::ERR_ABORTED/] });

    await visit(socket(form), async (visitor) => {
      const tools = await visitor.context.newCDPSession(visitor.page);
      await tools.send("Network.enable");
      const statuses = [];
      tools.on("Network.webSocketHandshakeResponseReceived", ({ response }) => statuses.push(response.status));
      await visitor.open(where[form]);
      const [text, bytes, protocol, code] = await visitor.page.evaluate(() => new Promise((done, refuse) => {
        const socket = new WebSocket(new URL("socket", location).href.replace("https", "wss"), ["echo.v1", "other"]);
        socket.binaryType = "arraybuffer";
        const heard = [];
        socket.onopen = () => {
          socket.send("grüße");
          socket.send(new Uint8Array(300_000).fill(7));
        };
        socket.onmessage = ({ data }) => {
          heard.push(typeof data === "string" ? data : new Uint8Array(data).filter((byte) => byte === 7).length);
          if (heard.length === 2) socket.close(4001, "enough");
        };
        socket.onerror = () => refuse(new Error("the socket broke"));
        socket.onclose = ({ code }) => done([...heard, socket.protocol, code]);
      }));
      same(`${text} ${bytes} ${protocol} ${code}`, "grüße 300000 echo.v1 4001", "the echo");
      // RFC 8441 answers 200 where RFC 6455 answers 101.
      same(statuses.join(), "200", "the status of the handshake");
      await until("the application's sockets are closed", () => app.sockets.size === 0);
    });
  }

  await test(names.out, async () => {
    const visitor = await world.visitor();
    const open = async (address) => {
      const page = await visitor.context.newPage();
      await page.goto(address);
      await page.evaluate(() => new Promise((done) => {
        window.socket = new WebSocket(new URL("socket", location).href.replace("https", "wss"));
        window.source = new EventSource("events");
        const socketOpens = new Promise((opened) => (window.socket.onopen = opened));
        const ticks = new Promise((heard) => (window.source.onmessage = heard));
        window.socketEnded = new Promise((ended) => (window.socket.onclose = ended));
        window.sourceEnded = new Promise((ended) => (window.source.onerror = ended));
        Promise.all([socketOpens, ticks]).then(done);
      }));
      return page;
    };
    const tabs = [await open(where["path form"]), await open(where["own origin"])];
    await visitor.page.getByRole("button", { name: "Sign out" }).click();
    await visitor.page.waitForURL(`${world.url}/-/sign-in`);
    const left = Date.now();
    await Promise.all(tabs.map((tab) => tab.evaluate(() => Promise.all([window.socketEnded, window.sourceEnded]))));
    const took = Date.now() - left;
    if (took > 1000) throw new Error(`it took ${took} ms`);
    await until("the application's sockets are closed", () => app.sockets.size === 0, 1000);
    await visitor.end();
  });

  await visit(names.headers, async (visitor) => {
    for (const [form, own] of [["path form", false], ["own origin", true]]) {
      await visitor.open(where[form]);
      const before = (await visitor.context.cookies()).filter((c) => c.name.startsWith("__Host-portreeve")).map((c) => c.value).sort().join();
      const headers = await visitor.page.evaluate(async () => {
        await fetch("set-cookie");
        return (await fetch("headers")).json();
      });
      same(headers.cookie, "mine=1", `cookies that the application sees (${form})`);
      same(headers["x-forwarded-proto"], "https", "X-Forwarded-Proto");
      contains(headers["x-forwarded-user"] ?? "", "", "X-Forwarded-User");
      const cookies = await visitor.context.cookies();
      same(cookies.filter((c) => c.name.startsWith("__Host-portreeve")).map((c) => c.value).sort().join(), before, "the portal's cookies");
      const mine = cookies.find((c) => c.name === "mine" && (c.path === "/") === own);
      same(mine?.path, own ? "/" : `/fw2/localhost:${app.port}/`, `the path of the application's cookie (${form})`);
    }
  });

  await app.end();
});
