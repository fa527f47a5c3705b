// A marimo notebook: its cells run over a WebSocket, and a slider runs them again.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

const NOTEBOOK = `
import marimo
app = marimo.App()
@app.cell
def _():
    import marimo as mo
    number = mo.ui.number(0, 100, value=3, label="Number")
    number
    return mo, number
@app.cell
def _(mo, number):
    mo.md(f"The square is {number.value ** 2}.")
    return
if __name__ == "__main__":
    app.run()
`;

export const marimo = {
  name: "marimo",
  heavy: true,
  needs: ({ venv }) => [join(venv, "bin/marimo")],
  async begin(place) {
    writeFileSync(join(place.dir, "notebook.py"), NOTEBOOK);
    const port = await place.port();
    await place.run(join(place.venv, "bin/marimo"), ["run", "notebook.py", "--headless", "--host", "127.0.0.1", "--port", String(port), "--no-token"], { port });
    return { port };
  },
  async use(page) {
    await page.getByText("The square is 9.").waitFor();
    const field = page.locator("input").first();
    await field.fill("5");
    await field.press("Enter");
    await page.getByText("The square is 25.").waitFor();
  },
};
