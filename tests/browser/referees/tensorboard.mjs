// TensorBoard with a run: its scalar is shown.

import { execFileSync } from "node:child_process";
import { join } from "node:path";

const WRITE = `
import sys
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter(sys.argv[1])
for step in range(20):
    value = Summary.Value(tag="training/loss", simple_value=1 / (step + 1))
    writer.add_event(Event(wall_time=1_700_000_000 + step, step=step, summary=Summary(value=[value])))
writer.close()
`;

export const tensorboard = {
  name: "TensorBoard",
  heavy: true,
  needs: ({ venv }) => [join(venv, "bin/tensorboard")],
  async begin(place) {
    execFileSync(join(place.venv, "bin/python"), ["-c", WRITE, join(place.dir, "runs", "first")], { stdio: "pipe" });
    const port = await place.port();
    await place.run(join(place.venv, "bin/tensorboard"), ["--logdir", join(place.dir, "runs"), "--host", "127.0.0.1", "--port", String(port)], { port });
    return { port };
  },
  async use(page) {
    await page.getByText("first").first().waitFor();
    await page.locator("scalar-card svg, scalar-card canvas").first().waitFor();
    await page.getByText("training/loss").first().waitFor();
  },
};
