/** The least that a sender in Node has to do with a tree: look at every file and read it, on one thread. */
import { lstatSync, readdirSync, readFileSync } from "node:fs"

let bytes = 0
const folders = [process.argv[2] ?? "."]
for (let at = folders.pop(); at !== undefined; at = folders.pop()) {
  for (const name of readdirSync(at)) {
    const file = `${at}/${name}`
    if (lstatSync(file).isDirectory()) folders.push(file)
    else bytes += readFileSync(file).length
  }
}
console.log(bytes)
