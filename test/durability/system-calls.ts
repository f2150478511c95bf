/** Reads what `strace -f -y` wrote: completed system calls in the order in which they returned. */

export type SystemCall = {
  readonly name: string
  /** As strace printed it: with -y, descriptors stand as `23</path>`. */
  readonly args: string
  readonly failed: boolean
}

const whole = /^(\d+)\s+(\w+)\((.*)\)\s+= (.*)$/
const begun = /^(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$/
const resumed = /^(\d+)\s+<\.\.\. (\w+) resumed>(.*)\)\s+= (.*)$/

export function readSystemCalls(text: string): SystemCall[] {
  const calls: SystemCall[] = []
  const pending = new Map<string, { name: string; args: string }>()
  for (const line of text.split("\n")) {
    const start = begun.exec(line)
    if (start) {
      const [, pid = "", name = "", args = ""] = start
      pending.set(pid, { name, args })
      continue
    }
    const end = resumed.exec(line)
    if (end) {
      const [, pid = "", name = "", rest = "", result = ""] = end
      const open = pending.get(pid)
      pending.delete(pid)
      calls.push({ name, args: (open?.args ?? "") + rest, failed: result.startsWith("-1") })
      continue
    }
    const [matched, , name = "", args = "", result = ""] = whole.exec(line) ?? []
    if (matched !== undefined) calls.push({ name, args, failed: result.startsWith("-1") })
  }
  return calls
}

/** The path in `23</path>`, the first of a call's arguments. */
export const descriptorPath = (call: SystemCall): string =>
  /^\d+<([^>]*)>/.exec(call.args)?.[1] ?? ""
