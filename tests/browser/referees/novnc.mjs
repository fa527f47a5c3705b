// noVNC's page, and a screen: it is drawn, and what is typed there arrives.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { until } from "../children.mjs";

const pages = "/usr/share/novnc";

export const novnc = {
  name: "noVNC",
  heavy: true,
  needs: ({ venv }) => [join(pages, "vnc.html"), "/usr/bin/Xvnc", "/usr/bin/xterm", join(venv, "bin/websockify")],
  path: "vnc.html?autoconnect=true&reconnect=false",
  async begin(place) {
    const [port, screen] = [await place.port(), await place.port()];
    const display = `:${1000 + (screen % 1000)}`;
    await place.run("/usr/bin/Xvnc", [display, "-rfbport", String(screen), "-localhost", "-SecurityTypes", "None", "-geometry", "800x600"], { port: screen });
    const typed = join(place.dir, "typed");
    await place.run("/usr/bin/xterm", ["-geometry", "80x24+0+0", "-e", "sh", "-c", `while read -r line; do echo "$line" >>'${typed}'; done`], { env: { DISPLAY: display } });
    await place.run(join(place.venv, "bin/websockify"), ["--web", pages, `127.0.0.1:${port}`, `127.0.0.1:${screen}`], { port });
    return { port, typed, visits: 0 };
  },
  async use(page, app) {
    const word = `word${(app.visits += 1)}`;
    await page.locator("canvas").first().waitFor();
    const isDrawn = () => page.evaluate(() => {
      const canvas = [...document.querySelectorAll("canvas")].find((one) => one.width >= 800);
      const { data } = canvas.getContext("2d").getImageData(0, 0, 200, 200);
      return new Set(new Uint32Array(data.buffer)).size > 1;
    });
    await until("the screen is drawn", isDrawn);
    const canvas = page.locator("canvas").last();
    await until(`${word} arrives`, async () => {
      await canvas.click({ position: { x: 60, y: 60 } });
      await page.keyboard.type(`${word}\n`, { delay: 20 });
      return existsSync(app.typed) && readFileSync(app.typed, "utf8").includes(word);
    }, 20_000);
  },
};
