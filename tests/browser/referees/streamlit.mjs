// Streamlit: a button, whose answer comes back over its WebSocket. It takes such connections from pages of its own name only.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

const APP = `
import streamlit as st
st.title("Squares")
number = st.number_input("Number", value=3)
if st.button("Square it"):
    st.write(f"The square is {number * number}.")
uploaded = st.file_uploader("A file")
if uploaded:
    st.write(f"It has {len(uploaded.getvalue())} bytes.")
`;

export const streamlit = {
  name: "Streamlit",
  heavy: true,
  proud: true,
  needs: ({ venv }) => [join(venv, "bin/streamlit")],
  async begin(place) {
    writeFileSync(join(place.dir, "app.py"), APP);
    const port = await place.port();
    const options = ["--server.headless=true", `--server.port=${port}`, "--server.address=localhost", "--browser.gatherUsageStats=false"];
    await place.run(join(place.venv, "bin/streamlit"), ["run", "app.py", ...options], { port });
    return { port };
  },
  async use(page) {
    await page.getByRole("button", { name: "Square it" }).click();
    await page.getByText("The square is 9.").waitFor();
    await page.locator("input[type=file]").setInputFiles({ name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("12345") });
    await page.getByText("It has 5 bytes.").waitFor();
  },
};
