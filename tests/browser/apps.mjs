// Small applications that run in the tests' own process, as the portal's user: one answers events and WebSockets.

import { createHash } from "node:crypto";
import { createServer } from "node:http";

const PAGE = `<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>Live</title><p>Live</p></html>`;

/** An application on a port of its own. `seen` has its requests, `sockets` its open WebSockets. */
export async function live() {
  const app = { seen: [], sockets: new Set() };
  app.server = createServer((request, response) => {
    app.seen.push(request);
    const path = request.url.split("?")[0];
    if (path === "/events") events(request, response);
    else if (path === "/") response.writeHead(200, { "Content-Type": "text/html" }).end(PAGE);
    else if (path === "/data") response.writeHead(200, { "Content-Type": "text/plain" }).end("secret data");
    else if (path === "/headers") response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(request.headers));
    else if (path === "/set-cookie") response.writeHead(200, { "Set-Cookie": ["mine=1; Path=/", "__Host-portreeve=stolen; Path=/; Secure"] }).end("set");
    else response.writeHead(404).end();
  });
  app.server.on("upgrade", (request, socket, head) => {
    app.seen.push(request);
    upgrade(app, request, socket, head);
  });
  await new Promise((done) => app.server.listen(0, "127.0.0.1", done));
  app.port = app.server.address().port;
  app.end = () => {
    app.server.closeAllConnections();
    app.sockets.forEach((socket) => socket.destroy());
    return new Promise((done) => app.server.close(done));
  };
  return app;
}

/** Three events, a little apart, and then no more. */
function events(request, response) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  let n = 0;
  const timer = setInterval(() => {
    n += 1;
    if (n <= 3) response.write(`id: ${n}\ndata: tick ${n}\n\n`);
  }, 200);
  request.once("close", () => clearInterval(timer));
}

/** RFC 6455, as much of it as an echo of small frames needs. */
function upgrade(app, request, socket, head) {
  const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  const protocol = request.headers["sec-websocket-protocol"]?.split(",")[0].trim();
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n${
      protocol ? `Sec-WebSocket-Protocol: ${protocol}\r\n` : ""}\r\n`,
  );
  app.sockets.add(socket);
  socket.once("close", () => app.sockets.delete(socket));
  socket.on("error", () => socket.destroy());
  socket.on("end", () => socket.end());
  let kept = head;
  const read = (bytes) => {
    kept = Buffer.concat([kept, bytes]);
    for (let frame = take(kept); frame; frame = take(kept)) {
      kept = frame.rest;
      const echo = Buffer.concat([header(frame.first, frame.data.length), frame.data]);
      if (frame.opcode === 8) socket.end(echo);
      else socket.write(echo);
    }
  };
  socket.on("data", read);
  if (head.length > 0) read(Buffer.alloc(0));
}

/** The first whole frame of `bytes`, unmasked. */
function take(bytes) {
  if (bytes.length < 6) return undefined;
  let [length, at] = [bytes[1] & 0x7f, 2];
  if (length === 126) [length, at] = [bytes.readUInt16BE(2), 4];
  else if (length === 127) {
    if (bytes.length < 10) return undefined;
    [length, at] = [Number(bytes.readBigUInt64BE(2)), 10];
  }
  const end = at + 4 + length;
  if (bytes.length < end) return undefined;
  const mask = bytes.subarray(at, at + 4);
  const data = Buffer.from(bytes.subarray(at + 4, end)).map((byte, n) => byte ^ mask[n % 4]);
  return { first: bytes[0] & 0x8f, opcode: bytes[0] & 0x0f, data, rest: bytes.subarray(end) };
}

/** A frame's head; `first` has the opcode, and whether the message ends here: long ones come in several frames. */
function header(first, length) {
  if (length < 126) return Buffer.from([first, length]);
  if (length < 65536) {
    const long = Buffer.from([first, 126, 0, 0]);
    long.writeUInt16BE(length, 2);
    return long;
  }
  const longest = Buffer.alloc(10);
  longest[0] = first;
  longest[1] = 127;
  longest.writeBigUInt64BE(BigInt(length), 2);
  return longest;
}
