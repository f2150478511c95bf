import { examineRelay, type Finding, RelayUnreachable } from "../index.js"
import type { DoctorRequest } from "./command-line.js"
import type { Context } from "./context.js"
import { showCount, showText } from "./display.js"
import { FindingsRemain, UsageError } from "./errors.js"
import { parseRelay } from "./recipients.js"
import { readConfig } from "./settings.js"

export async function examine(request: DoctorRequest, context: Context): Promise<void> {
  const { output, paths } = context
  const written = request.relay ?? readConfig(paths).relay
  if (written === undefined) {
    throw new UsageError("which relay? Name it: knothole doctor https://drop.example.org")
  }
  const asked = parseRelay(written)
  const examination = await context.work((work) => examineRelay({ relay: asked, ...work }))
  const { origin, relay, findings, isReachable } = examination
  if (relay !== undefined) output.say(`${origin} is a Knothole relay, version ${relay.version}.`)
  output.event("relay", { origin, reachable: isReachable, version: relay?.version ?? null })
  for (const found of findings) {
    output.result(describe(found))
    output.event("finding", found)
  }
  if (!isReachable) {
    const message = `no relay could be met at ${origin}`
    throw new RelayUnreachable(origin, message, { retryable: true })
  }
  if (findings.length > 0) {
    throw new FindingsRemain(`${showCount(findings.length, "finding")} at ${origin}`)
  }
  output.say("Nothing is in the way between it and its users, as far as can be seen from here.")
}

function describe({ code, what, why, mend }: Finding): string {
  return [`${code}: ${showText(what)}`, `  why:  ${why}`, `  mend: ${mend}`].join("\n")
}
