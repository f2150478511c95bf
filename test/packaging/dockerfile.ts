// The steps of a Dockerfile, as far as ours uses the language.
import { readFileSync } from "node:fs"

export interface Stage {
  readonly name: string
  readonly image: string
  readonly steps: readonly Step[]
}

export interface Step {
  readonly instruction: string
  readonly rest: string
}

/** Throws for an instruction that the container test would not carry out. */
export function parseDockerfile(file: string): Stage[] {
  const stages: { name: string; image: string; steps: Step[] }[] = []
  for (const line of readFileSync(file, "utf8").split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue
    const [, instruction = "", rest = ""] = /^([A-Z]+) (.+)$/.exec(line) ?? []
    if (instruction === "FROM") {
      const [image = "", , name = ""] = rest.split(" ")
      stages.push({ name, image, steps: [] })
      continue
    }
    if (!/^(USER|WORKDIR|COPY|RUN|ENV|VOLUME|EXPOSE|HEALTHCHECK|CMD)$/.test(instruction)) {
      throw new Error(`a step this reader does not know: ${line}`)
    }
    stages.at(-1)?.steps.push({ instruction, rest })
  }
  return stages
}

/** The JSON form of a command, which no shell reads. */
export function commandOf(rest: string): string[] {
  const from = rest.indexOf("[")
  // Checked element by element: this is a file a person writes.
  const words: unknown = JSON.parse(rest.slice(from))
  if (!Array.isArray(words) || !words.every((word) => typeof word === "string")) {
    throw new Error(`not a command in JSON form: ${rest}`)
  }
  return words
}
