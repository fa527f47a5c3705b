// What passed and what did not.

const LONGEST_TEST = 90_000;

/** Thrown by a test that lacks what it needs. */
export class Skip extends Error {}

export class Report {
  #passed = 0;
  #failed = 0;
  #skipped = 0;
  #filter;

  constructor(filter) {
    this.#filter = filter;
  }

  /** Whether any of these tests is asked for. */
  wants(...names) {
    return names.some((name) => name.includes(this.#filter));
  }

  /** Runs one test. `world` gives what a failure should show beside its reason. */
  async test(name, body, world) {
    if (!this.wants(name)) return;
    let timer;
    const late = new Promise((_, refuse) => {
      timer = setTimeout(() => refuse(new Error(`not done after ${LONGEST_TEST / 1000} s`)), LONGEST_TEST);
    });
    const started = Date.now();
    try {
      await Promise.race([body(), late]);
      this.#passed += 1;
      console.log(`ok ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
    } catch (error) {
      if (error instanceof Skip) this.skipped(name, error.message);
      else {
        this.failed(name, error.stack ?? error);
        if (world) console.log(`  the portal's log ends:\n${world.logTail()}`);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  failed(name, why) {
    this.#failed += 1;
    console.log(`FAILED ${name}: ${why}`);
  }

  skipped(name, why) {
    this.#skipped += 1;
    console.log(`SKIPPED: ${name}: ${why}`);
  }

  /** Says how many of each, and gives the exit code. */
  close() {
    console.log(`${this.#passed} passed, ${this.#failed} failed, ${this.#skipped} skipped`);
    return this.#failed > 0 ? 1 : 0;
  }
}
