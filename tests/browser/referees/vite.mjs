// Vite's development server: modules one by one, and a change of a file that shows without a reload. It answers to its own
// name only.

import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const FILES = {
  "index.html": '<!doctype html><html><head><title>Vite</title><link rel="icon" href="/icon.svg"></head><body><div id="app"></div><script type="module" src="/src/main.js"></script></body></html>',
  "public/icon.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>',
  "src/picture.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8" fill="red"/></svg>',
  "src/style.css": "#app { color: rgb(1, 2, 3); background: url(/icon.svg) }",
  "src/said.js": 'export const said = "first text";',
  "src/main.js": `
import { createApp, h, ref } from "vue";
import "./style.css";
import picture from "./picture.svg?no-inline";
import { said } from "./said.js";
const text = ref(said);
createApp({ render: () => h("div", [h("p", text.value), h("img", { src: picture })]) }).mount("#app");
globalThis.loads = 1;
import("/src/later.js").then(({ later }) => { document.title = later; });
if (import.meta.hot) import.meta.hot.accept("./said.js", (changed) => { text.value = changed.said; });
`,
  "src/later.js": 'export const later = "Loaded later";',
};

export const vite = {
  name: "Vite",
  heavy: true,
  proud: true,
  needs: () => [join(process.env.PORTREEVE_REFEREE_MODULES ?? "/nonexistent", "vite/bin/vite.js")],
  async begin(place) {
    for (const [name, text] of Object.entries(FILES)) {
      mkdirSync(join(place.dir, name, ".."), { recursive: true });
      writeFileSync(join(place.dir, name), text);
    }
    writeFileSync(join(place.dir, "package.json"), '{"type": "module"}');
    // Its cache goes beside the modules.
    mkdirSync(join(place.dir, "node_modules"));
    for (const name of ["vue", "vite"]) symlinkSync(join(place.modules, name), join(place.dir, "node_modules", name));
    const port = await place.port();
    await place.run(process.execPath, [join(place.modules, "vite/bin/vite.js"), "--port", String(port), "--strictPort", "--host", "localhost"], { port });
    return { port, dir: place.dir, visits: 0 };
  },
  async use(page, app) {
    await page.waitForFunction(() => document.title === "Loaded later");
    await page.locator("#app p").waitFor();
    await page.waitForFunction(() => getComputedStyle(document.querySelector("#app")).color === "rgb(1, 2, 3)");
    await page.waitForFunction(() => document.querySelector("#app img").naturalWidth > 0);
    await page.evaluate(() => { globalThis.loads += 1; });
    const text = `text ${(app.visits += 1)}`;
    writeFileSync(join(app.dir, "src/said.js"), `export const said = "${text}";`);
    await page.getByText(text, { exact: true }).waitFor();
    await page.waitForFunction(() => globalThis.loads === 2);
  },
};
