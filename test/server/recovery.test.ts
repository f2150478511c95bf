import { rmSync } from "node:fs"
import { join } from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import { createRelay } from "../../server/index.js"
import { FaultyDisk } from "./faulty-disk.js"
import { personAt } from "./people.js"
import { configFor, makeDelivery, openRelay, type RelayUnderTest } from "./relay-under-test.js"

function loseIndex(under: RelayUnderTest): void {
  rmSync(join(under.folder, "index"), { recursive: true })
}

describe("the rebuild of a lost index", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  it("ends when the relay is told to stop, without an alarm, and is begun anew by the next start", async () => {
    under = await openRelay()
    const [alice, bob] = [await personAt(0), await personAt(1)]
    for (const person of [alice, bob]) {
      await under.client.register(person)
      await under.client.send(makeDelivery([person]))
    }
    await under.relay.stop()
    loseIndex(under)
    const log: string[] = []
    const disk = new FaultyDisk()
    let stopped: Promise<void> | undefined
    const relay = await createRelay(configFor(under.folder), {
      disk,
      writeLog: (line) => log.push(JSON.parse(line).event),
    })
    disk.before = () => {
      stopped ??= relay.stop()
    }
    await expect(relay.ready).rejects.toThrow(/aborted/)
    await stopped
    expect(log).not.toContain("recovery_failed")
    expect(log).not.toContain("index_rebuilt")
    under = await openRelay({ folder: under.folder })
    expect(under.log.map(({ event }) => event)).toContain("index_rebuilt")
    for (const person of [alice, bob]) {
      const { entries } = await under.client.list(await under.client.login(person))
      expect(entries).toMatchObject([{ kind: "waiting", seq: 1 }])
    }
  })
})
