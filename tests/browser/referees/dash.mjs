// Dash, on Flask: a callback in Python answers what is typed.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

const APP = `
import sys
from dash import Dash, Input, Output, dcc, html
app = Dash()
app.layout = html.Div([dcc.Input(id="typed", value="a", type="text"), html.Div(id="said"), dcc.Graph(figure={"data": [{"y": [1, 4, 9]}]})])
@app.callback(Output("said", "children"), Input("typed", "value"))
def say(typed): return f"{len(typed or '')} letters"
app.run(host="127.0.0.1", port=int(sys.argv[1]), debug=False)
`;

export const dash = {
  name: "Dash",
  heavy: true,
  needs: ({ venv }) => [join(venv, "bin/dash-generate-components")],
  async begin(place) {
    writeFileSync(join(place.dir, "app.py"), APP);
    const port = await place.port();
    await place.run(join(place.venv, "bin/python"), ["app.py", String(port)], { port });
    return { port };
  },
  async use(page) {
    await page.getByText("1 letters").waitFor();
    await page.locator("#typed").fill("seven");
    await page.getByText("5 letters").waitFor();
    await page.locator(".js-plotly-plot svg").first().waitFor();
  },
};
