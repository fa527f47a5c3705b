// A Bokeh server: a button's callback runs in Python and changes the page. It takes WebSockets from pages of its own name only.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

const APP = `
from bokeh.io import curdoc
from bokeh.layouts import column
from bokeh.models import Button, Div
from bokeh.plotting import figure
plot = figure(width=300, height=200)
plot.line([1, 2, 3], [1, 4, 9])
said, button = Div(text="nothing yet"), Button(label="Count")
count = 0
def pressed():
    global count
    count += 1
    said.text = f"pressed {count} times"
button.on_click(pressed)
curdoc().add_root(column(button, said, plot))
`;

export const bokeh = {
  name: "Bokeh",
  heavy: true,
  proud: true,
  needs: ({ venv }) => [join(venv, "bin/bokeh")],
  path: "app",
  async begin(place) {
    writeFileSync(join(place.dir, "app.py"), APP);
    const port = await place.port();
    await place.run(join(place.venv, "bin/bokeh"), ["serve", "app.py", "--address", "127.0.0.1", "--port", String(port)], { port });
    return { port };
  },
  async use(page) {
    await page.getByRole("button", { name: "Count" }).click();
    await page.getByText("pressed 1 times").waitFor();
    await page.getByRole("button", { name: "Count" }).click();
    await page.getByText("pressed 2 times").waitFor();
    await page.locator("canvas").first().waitFor();
  },
};
