// A program that somebody wants run for each delivery. No shell: its words are what was written.
import { spawn } from "node:child_process"
import { accessSync, constants, statSync } from "node:fs"
import path from "node:path"
import { UsageError } from "./errors.js"
import type { Environment } from "./settings.js"

export interface ProgramEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** Found out before anything is received: later nobody may be there to read of a mistyped name. */
export function checkProgram(name: string, env: Environment): void {
  const places = name.includes("/")
    ? [name]
    : (env["PATH"] ?? "").split(path.delimiter).map((folder) => path.join(folder, name))
  if (places.some(isProgram)) return
  throw new UsageError(`there is no program '${name}' to run; write its whole path, or correct it`)
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}

/**
 * Ends when the program has, however it ended. What it prints goes to stderr: stdout is for the result.
 * An abort asks it to stop, and still waits for it.
 */
export async function runProgram(options: {
  words: readonly string[]
  env: Environment
  signal: AbortSignal
}): Promise<ProgramEnd> {
  const { words, env, signal } = options
  const [file = "", ...args] = words
  signal.throwIfAborted()
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { env, shell: false, stdio: ["ignore", 2, 2] })
    const onAbort = () => child.kill("SIGTERM")
    signal.addEventListener("abort", onAbort, { once: true })
    const settle = () => signal.removeEventListener("abort", onAbort)
    child.on("error", (error) => {
      settle()
      reject(error)
    })
    child.on("exit", (code, killedBy) => {
      settle()
      resolve({ code, signal: killedBy })
    })
  })
}
