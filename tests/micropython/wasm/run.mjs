// Runs a script on MicroPython's WebAssembly build: objects and small integers of 32 bits, as on an ESP32.
// Run as: node run.mjs SCRIPT PROTOCOLS CASES...; prints a line a case file, and ends with 1 after the first that fails.
import { readFileSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadMicroPython } from "@micropython/micropython-webassembly-pyscript/micropython.mjs";

const [script, protocols, ...cases] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));

function copy(files, from, to) {
  files.mkdir(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (entry.isDirectory() && entry.name !== "__pycache__") copy(files, join(from, entry.name), `${to}/${entry.name}`);
    if (entry.name.endsWith(".py")) files.writeFile(`${to}/${entry.name}`, readFileSync(join(from, entry.name)));
  }
}

for (const file of cases) {
  let said = "";
  const micropython = await loadMicroPython({ heapsize: 1024 * 1024, linebuffer: true, stdout: (line) => (said = line) });
  copy(micropython.FS, protocols, "/protocols");
  micropython.FS.writeFile("/protocols/cryptolib.py", readFileSync(join(here, "cryptolib.py")));
  micropython.FS.writeFile("/cases.json", readFileSync(file));
  try {
    micropython.runPython("import sys\nassert sys.maxsize == 0x7fffffff\nsys.path.append('/protocols')\nsys.argv[:] = ['', '/cases.json']");
    micropython.runPython(readFileSync(script, "utf-8"));
  } catch (error) {
    console.log(`${basename(file)}: ${error.message}`);
    process.exit(1);
  }
  console.log(`${basename(file)}: ${said}`);
}
