// Programs that the tests start, and end again by their process id.

import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { connect, createServer } from "node:net";

const children = new Set();

/** Starts a program whose output goes into files below `logs`; with `uid`, as another user. */
export function start(program, args, { stdout = "ignore", stderr = "ignore", ...options } = {}) {
  const out = typeof stdout === "string" && stdout.startsWith("/") ? openSync(stdout, "a") : stdout;
  const err = typeof stderr === "string" && stderr.startsWith("/") ? openSync(stderr, "a") : stderr;
  const child = spawn(program, args, { ...options, stdio: ["ignore", out, err] });
  for (const file of [out, err]) if (typeof file === "number") closeSync(file);
  children.add(child);
  child.ended = new Promise((done) => {
    child.once("exit", done);
    child.once("error", done);
  });
  child.ended.then(() => children.delete(child));
  return child;
}

/** Ends a program: politely, and after five seconds in earnest. */
export async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  child.kill("SIGTERM");
  const earnest = setTimeout(() => child.kill("SIGKILL"), 5000);
  await child.ended;
  clearTimeout(earnest);
}

export async function endChildren() {
  await Promise.all([...children].map(end));
}

process.once("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.once(signal, () => endChildren().finally(() => process.exit(130)));
}

/** A port that was free a moment ago. */
export function freePort() {
  return new Promise((done, refuse) => {
    const server = createServer();
    server.once("error", refuse);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

/** Asks until `question` answers with something true. */
export async function until(what, question, patience = 15_000) {
  const deadline = Date.now() + patience;
  let last;
  for (;;) {
    try {
      const answer = await question();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within ${patience / 1000} s${last ? ` (${last.message})` : ""}`);
    await new Promise((done) => setTimeout(done, 25));
  }
}

/** Waits until something listens on the port. */
export function listening(port, patience) {
  return until(`port ${port} listens`, () => new Promise((done) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      done(true);
    });
    socket.once("error", () => done(false));
  }), patience);
}
