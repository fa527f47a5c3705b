// Python's own file server: a listing, a directory below it, and a file with a blank in its name.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { same } from "../world.mjs";

export const directory = {
  name: "http.server",
  async begin(place) {
    const port = await place.port();
    mkdirSync(join(place.dir, "shown", "a directory"), { recursive: true });
    writeFileSync(join(place.dir, "shown", "a directory", "file one.txt"), "text of file one");
    await place.run("python3", ["-m", "http.server", port, "--bind", "127.0.0.1", "--directory", join(place.dir, "shown")].map(String), { port });
    return { port };
  },
  async use(page) {
    await page.getByRole("link", { name: "a directory/" }).click();
    await page.getByRole("link", { name: "file one.txt" }).click();
    same(await page.locator("pre").innerText(), "text of file one", "the file");
    await page.goBack();
    await page.getByRole("heading").waitFor();
  },
};
