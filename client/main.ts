#!/usr/bin/env node
// The program. The one file that reaches both sides, and it loads the relay only for `knothole relay`.
import { readFileSync } from "node:fs"
import { homedir } from "node:os"
import { run } from "./program/run.js"

// Whoever reads our output may stop doing so; a transfer goes on all the same.
process.stdout.on("error", ignoreBrokenPipe)
process.stderr.on("error", ignoreBrokenPipe)

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
    // oxlint-disable-next-line no-restricted-imports -- the one place where both sides meet
    return runRelay(await import("../server/index.js"), options)
  },
})
// What was asked for is over: a connection or a timer that is left shall not keep the person waiting.
process.stdout.write("", () => process.stderr.write("", () => process.exit(exit)))

function ignoreBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== "EPIPE") throw error
}

function readVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8")
  const value: unknown = JSON.parse(text)
  if (typeof value === "object" && value !== null && "version" in value)
    return String(value.version)
  throw new TypeError("package.json names no version")
}
