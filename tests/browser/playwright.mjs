// playwright-core stands below target/, where an import does not look.

import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.PORTREEVE_NODE_MODULES, "anchor.js"));
export const { chromium } = require("playwright-core");
