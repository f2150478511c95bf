// One run of the program: what was asked for, done with what it needs, and how it ended.
import type { Command } from "commander"
import { quoteForShell } from "./display.js"
import type { Context, WorkOptions } from "./context.js"
import { parseCommandLine } from "./command-line.js"
import type { Request } from "./command-line.js"
import { exitCodes } from "./exit-codes.js"
import type { ExitCode } from "./exit-codes.js"
import { listenForInterruption } from "./interruption.js"
import { Output } from "./output.js"
import type { OutputMode } from "./output.js"
import type { RelayOptions } from "./relay.js"
import type { Proxies } from "../proxies.js"
import { programPaths, readProxy } from "./settings.js"
import type { Environment, ProgramPaths } from "./settings.js"

export interface RunOptions {
  readonly args: readonly string[]
  readonly env: Environment
  readonly homeFolder: string
  readonly stdin: NodeJS.ReadStream
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
  readonly readVersion: () => string
  readonly runRelay: (options: RelayOptions) => Promise<ExitCode>
  /** The flags of `knothole relay`, which are the relay's own. */
  readonly describeRelay: () => Promise<Command>
}

export async function run(options: RunOptions): Promise<ExitCode> {
  const { args, env, stdin, stdout, stderr } = options
  let output = new Output({ mode: guessOutputMode(args), stdout, stderr, env, isList: false })
  let howToGoOn: string | undefined
  try {
    const request = parseCommandLine({ args, env })
    if (request.command === "help") {
      stdout.write(request.text)
      return exitCodes.done
    }
    if (request.command === "version") {
      stdout.write(`${options.readVersion()}\n`)
      return exitCodes.done
    }
    if (request.command === "completion") {
      const { completion } = await import("./completion.js")
      const paths = programPaths(env, options.homeFolder)
      stdout.write(await completion(request, { paths, describeRelay: options.describeRelay }))
      return exitCodes.done
    }
    if (request.command === "relay") {
      const relay = options.runRelay({ args: request.args, env, stdout, stderr })
      return await Promise.race([relay, nothingLeft()])
    }
    const isList =
      request.command === "inbox" ||
      request.command === "show" ||
      ((request.command === "contact" || request.command === "identity") &&
        request.action === "list")
    output = new Output({ mode: request.output, stdout, stderr, env, isList })
    const { proxy } = request
    const paths = programPaths(env, options.homeFolder)
    const work = perform(request, {
      paths,
      output,
      env,
      stdin,
      work: (task) => workWith(output, () => programProxies(paths, env, proxy), task),
      canResume: (how) => (howToGoOn = how),
      sameAgain: ["knothole", ...args].map(quoteForShell).join(" "),
    })
    await Promise.race([work, nothingLeft()])
    output.end({ exit: exitCodes.done })
    return exitCodes.done
  } catch (error) {
    output.stopProgress()
    const { explainFailure } = await import("./failures.js")
    const failure = explainFailure(error)
    const mayResume =
      failure.exit === exitCodes.interrupted || failure.exit === exitCodes.unreachable
    const remedy = [failure.remedy, mayResume ? howToGoOn : undefined]
      .filter((text) => text !== undefined)
      .join("\n")
    output.end({
      exit: failure.exit,
      error: {
        code: failure.code,
        message: failure.message,
        ...(remedy !== "" && { remedy }),
      },
    })
    return failure.exit
  }
}

/** Rejects when this process has nothing more to wait for: what has not ended by then never will. */
function nothingLeft(): Promise<never> {
  return new Promise((_, reject) => {
    process.once("beforeExit", () => {
      reject(new Error("the work stopped before it was done, with nothing left to wait for"))
    })
  })
}

type ClientRequest = Exclude<Request, { command: "help" | "version" | "relay" | "completion" }>

// Each command brings its own part of the library with it, so that none waits for another's.
async function perform(request: ClientRequest, context: Context): Promise<void> {
  switch (request.command) {
    case "init": {
      const { init } = await import("./init.js")
      return init(request, context)
    }
    case "address": {
      const { showAddress } = await import("./address.js")
      return showAddress(request, context)
    }
    case "send": {
      const { sendFiles } = await import("./send.js")
      return sendFiles(request, context)
    }
    case "inbox": {
      const { listInbox } = await import("./inbox.js")
      return listInbox(request, context)
    }
    case "show": {
      const { showDelivery } = await import("./show.js")
      return showDelivery(request, context)
    }
    case "receive": {
      const { receiveDeliveries } = await import("./receive.js")
      return receiveDeliveries(request, context)
    }
    case "watch": {
      const { watchInbox } = await import("./watch.js")
      return watchInbox(request, context)
    }
    case "status": {
      const { showStatus } = await import("./sent.js")
      return showStatus(request, context)
    }
    case "revoke": {
      const { revoke } = await import("./sent.js")
      return revoke(request, context)
    }
    case "forget": {
      const { forget } = await import("./forget.js")
      return forget(request, context)
    }
    case "identity": {
      const { manageIdentities } = await import("./identity.js")
      return manageIdentities(request, context)
    }
    case "contact": {
      const { manageContacts } = await import("./contact.js")
      return manageContacts(request, context)
    }
    case "doctor": {
      const { examine } = await import("./doctor.js")
      return examine(request, context)
    }
    case "discard": {
      const { discard } = await import("./discard.js")
      return discard(request, context)
    }
  }
}

async function workWith<T>(
  output: Output,
  findProxies: () => Promise<Proxies>,
  task: (options: WorkOptions) => Promise<T>,
): Promise<T> {
  const proxies = await findProxies()
  const interruption = listenForInterruption(() => {
    output.say("stopping; Ctrl-C again ends at once")
  })
  try {
    return await output.withProgress((onProgress) =>
      task({ signal: interruption.signal, onProgress, proxies }),
    )
  } catch (error) {
    // Whatever an aborted call ended with, this is why.
    throw interruption.reason() ?? error
  } finally {
    interruption.release()
  }
}

/** Only the flag is free of passwords; the others may hold one, so none of them is ever shown. */
async function programProxies(
  paths: ProgramPaths,
  env: Environment,
  flag: string | undefined,
): Promise<Proxies> {
  const { openProxies } = await import("../proxies.js")
  const ours = env["KNOTHOLE_PROXY"]
  const proxy = flag ?? (ours === undefined || ours === "" ? readProxy(paths) : ours)
  return openProxies({ proxy, env })
}

/** Until the command line is understood, its own words say who is listening. */
function guessOutputMode(args: readonly string[]): OutputMode {
  return { json: args.includes("--json"), quiet: false }
}
