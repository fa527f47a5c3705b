// JupyterLab: a cell run in a new notebook, and a terminal. It answers to the names of its own machine only.

import { join } from "node:path";

import { Lab, TOKEN, makesANotebook, runsATerminal } from "../jupyter.mjs";

export const jupyter = {
  name: "JupyterLab",
  heavy: true,
  proud: true,
  needs: ({ venv }) => [join(venv, "bin/jupyter-lab")],
  path: `lab?reset&token=${TOKEN}`,
  async begin(place) {
    const port = await place.port();
    const lab = await Lab.begin(port, "/");
    place.onEnd(() => lab.end());
    return { port };
  },
  async use(page) {
    await makesANotebook(page);
    await runsATerminal(page);
  },
};
