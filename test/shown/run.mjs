// `npm run shown -- NAME [ARGUMENT…]` runs one of the commands in this folder; without a name it lists them.
import { readdirSync } from "node:fs"
import { pathToFileURL } from "node:url"
import path from "node:path"

const folder = path.resolve("dist-test/test/shown")
// What several of them use.
const shared = ["figures.js", "filled-folder.js", "counting-proxy.js", "terminal-picture.js"]
const names = readdirSync(folder)
  .filter((file) => file.endsWith(".js") && !shared.includes(file))
  .map((file) => file.slice(0, -3))
const [name] = process.argv.splice(2, 1)
if (name === undefined || !names.includes(name)) {
  console.error(`usage: npm run shown -- NAME\n${names.map((known) => `  ${known}`).join("\n")}`)
  process.exit(2)
}
await import(pathToFileURL(path.join(folder, `${name}.js`)).href)
