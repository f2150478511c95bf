#!/usr/bin/env node
// The program. The one file that reaches both sides, and it loads the relay only for `knothole relay`.
import { readFileSync } from "node:fs"
import { homedir } from "node:os"
import { setFlagsFromString } from "node:v8"

// Every piece that comes from a socket is a short-lived buffer of up to 64 KiB. With a young generation
// that stays at its first size they go in frequent cheap collections; grown, it lets them pile up until
// the whole heap is collected for their sake, which took the relay 40 % of its processor time. It has to
// be said before anything else is loaded, because that would already make it grow.
setFlagsFromString("--semi-space-growth-factor=1")
const { run } = await import("./program/run.js")

let lostOutput: Error | undefined
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    // Whoever reads our output may stop doing so; a transfer goes on all the same.
    if (error.code !== "EPIPE") lostOutput ??= error
  })
}

/* oxlint-disable no-restricted-imports -- the one place where both sides meet */
// A relay's help and its mistyped settings need not wait for what it runs on, which takes as long to
// load as all the rest.
const createRelay: typeof import("../server/index.js").createRelay = async (config, ports) =>
  (await import("../server/index.js")).createRelay(config, ports)

const declareRestored: typeof import("../server/index.js").declareRestored = async (
  config,
  backupMs,
) => (await import("../server/index.js")).declareRestored(config, backupMs)

const exit = await run({
  args: process.argv.slice(2),
  env: process.env,
  homeFolder: homedir(),
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  readVersion,
  runRelay: async (options) => {
    const { runRelay } = await import("./program/relay.js")
    const { DataFolderError } = await import("../server/stores/folder-lock.js")
    const face = {
      ...(await import("../server/config.js")),
      DataFolderError,
      createRelay,
      declareRestored,
    }
    return runRelay(face, options)
  },
  describeRelay: async () => {
    const { describeRelay } = await import("./program/relay.js")
    return describeRelay((await import("../server/config.js")).configSettings)
  },
})
await flush(process.stdout)
await flush(process.stderr)
// What was asked for is over: a connection or a timer that is left shall not keep the person waiting.
process.exit(lostOutput === undefined ? exit : await reportLostOutput(lostOutput))

function flush(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    stream.write("", () => resolve())
  })
}

/** What was asked for may have been done; a result that nobody can read is a failure all the same. */
async function reportLostOutput(error: Error): Promise<number> {
  const { explainFailure } = await import("./program/failures.js")
  const { exit: code, message } = explainFailure(error)
  process.stderr.write(`knothole: the result could not be written: ${message}\n`)
  return code
}

function readVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8")
  const value: unknown = JSON.parse(text)
  if (typeof value === "object" && value !== null && "version" in value)
    return String(value.version)
  throw new TypeError("package.json names no version")
}
