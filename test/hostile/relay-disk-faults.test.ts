import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import { parseFinishReply, parseStartUploadReply, random, toHex } from "../../protocol/index.js"
import { FaultyDisk, failNth, systemError } from "../server/faulty-disk.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import {
  makeDelivery,
  openRelay,
  partOf,
  type RelayUnderTest,
  type SmallClient,
  type TestDelivery,
} from "../server/relay-under-test.js"

interface Attempt {
  readonly statuses: readonly number[]
  readonly id: string
  readonly receipt: string
}

/** One small sending, as a client without patience does it: it stops at the first refusal. */
async function attempt(
  client: SmallClient,
  delivery: TestDelivery,
  options: { readonly idempotencyKey: string; readonly deleteCap: Uint8Array },
): Promise<Attempt> {
  const statuses: number[] = []
  const gaveUp = (id: string = "") => ({ statuses, id, receipt: "" })
  const started = await client.postUpload(delivery.recipients, {
    ...options,
    reserveBytes: delivery.body.length,
  })
  statuses.push(started.status)
  if (started.status !== 201) return gaveUp()
  const upload = parseStartUploadReply(started.body)
  for (const index of [0, 1]) {
    const part = await client.putPart(upload, index, partOf(delivery.body, index))
    statuses.push(part.status)
    if (part.status !== 200) return gaveUp(upload.id)
  }
  const finished = await client.postFinish(upload, delivery.finish)
  statuses.push(finished.status)
  if (finished.status !== 200) return gaveUp(upload.id)
  const [receipt] = parseFinishReply(finished.body).receipts
  return { statuses, id: upload.id, receipt: toHex(receipt?.receipt ?? new Uint8Array()) }
}

async function waitingIds(client: SmallClient, session: string): Promise<string[]> {
  const { entries } = await client.list(session)
  return entries.flatMap((entry) => (entry.kind === "waiting" ? [entry.id] : []))
}

describe("a disk that fails", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  for (const [code, status] of [
    ["ENOSPC", 507],
    ["EIO", 503],
  ] as const) {
    it(`T22: answers ${status} to ${code} at any operation of a sending, shows nothing half, and lets it be done again`, async () => {
      const disk = new FaultyDisk()
      under = await openRelay({ ports: { disk } })
      const { client } = under
      const alice = await personAt(0)
      await client.register(alice)
      const session = await client.login(alice)
      // Once without a fault, for the keys of the day and to count the operations.
      const counted = disk.operations.length
      const first = await attempt(client, makeDelivery([alice], { bodyLength: 200_000 }), {
        idempotencyKey: toHex(random(16)),
        deleteCap: random(32),
      })
      expect(first.statuses).toEqual([201, 200, 200, 200])
      const operations = disk.operations.length - counted
      expect(operations).toBeGreaterThan(40)

      const refused = new Set<number>()
      for (let n = 1; n <= operations + 5; n++) {
        const delivery = makeDelivery([alice], { bodyLength: 200_000 })
        const options = { idempotencyKey: toHex(random(16)), deleteCap: random(32) }
        const before = await waitingIds(client, session)
        failNth(disk, n, code)
        const failed = await attempt(client, delivery, options)
        disk.before = () => undefined
        const last = failed.statuses.at(-1) ?? 0
        const after = await waitingIds(client, session)
        if (last >= 400) {
          refused.add(n)
          // A part whose sync failed has to be sent again; all else is the disk's own refusal.
          expect([status, 409], `operation ${n}`).toContain(last)
          expect(after, `operation ${n}`).toEqual(before)
        }
        let again = await attempt(client, delivery, options)
        // The part is back; what it needs is a second finish, which this client sends as a new attempt.
        if (again.statuses.at(-1) === 409) again = await attempt(client, delivery, options)
        const wasFinished = again.statuses.includes(409)
        if (!wasFinished) expect(again.statuses, `operation ${n}`).toEqual([201, 200, 200, 200])
        const upload = parseStartUploadReply(
          (await client.postUpload([alice], { ...options, reserveBytes: 200_000 })).body,
        )
        const finished = await client.postFinish(upload, delivery.finish)
        expect(finished.status, `operation ${n}`).toBe(200)
        expect(await waitingIds(client, session), `operation ${n}`).toEqual([...before, upload.id])
        const body = await client.bytes(`/v1/deliveries/${upload.id}/body`, session)
        expect(Buffer.compare(body.body, delivery.body), `operation ${n}`).toBe(0)
      }
      expect(refused.size).toBeGreaterThan(20)

      // What the failures left lying is gone, but for what the records lead to.
      await under.relay.reconcile()
      await under.relay.sweep()
      expect(readdirSync(join(under.folder, "spool"))).toEqual([])
      expect(readdirSync(join(under.folder, "trash"))).toEqual([])
      for (const id of readdirSync(join(under.folder, "store"))) {
        expect(
          readdirSync(join(under.folder, "store", id))
            .sort()
            .map(kindOf),
        ).toEqual(["commit.v1", "leaves", "links.v1", "manifest", "part", "part", "upload.v1"])
      }
    }, 300_000)
  }

  for (const [code, broken] of [
    ["EROFS", ["create", "rename", "unlink", "makeFolder", "removeFolder", "file.write"]],
    ["EIO", undefined],
  ] as const) {
    it(`a disk that answers ${code} to ${broken === undefined ? "everything" : "every change"} is told of, gives no receipt, and is used again when it is mended`, async () => {
      const disk = new FaultyDisk()
      const clock = new ManualClock()
      under = await openRelay({ ports: { disk, clock } })
      const { client } = under
      const alice = await personAt(0)
      await client.register(alice)
      const session = await client.login(alice)
      const kept = await client.send(makeDelivery([alice]))
      const delivery = makeDelivery([alice], { bodyLength: 200_000 })
      const upload = await client.start([alice], delivery.body.length)
      await client.putPart(upload, 0, partOf(delivery.body, 0)).expect(200)
      await client.get("/healthz").expect(200)
      disk.before = (operation) => {
        if (broken?.some((one) => one === operation) ?? true) throw systemError(code)
      }
      clock.advance(1000)
      const refused = [
        await client.postUpload([alice]),
        await client.putPart(upload, 1, partOf(delivery.body, 1)),
        await client.postFinish(upload, delivery.finish),
      ]
      // A part whose fate the disk does not tell is missing.
      expect(refused.map(({ body }) => body.code)).toEqual([
        "disk_unavailable",
        "disk_unavailable",
        expect.stringMatching(/^(disk_unavailable|parts_missing)$/),
      ])
      for (const { status, headers } of refused.slice(0, 2)) {
        expect([status, headers["retry-after"]]).toEqual([503, "30"])
      }
      await client.get("/healthz").expect(503)
      await client.get("/v1/relay").expect(200)
      const fetched = await client.bytes(`/v1/deliveries/${kept.id}/body`, session)
      expect(fetched.status).toBe(broken === undefined ? 503 : 200)
      await under.relay.sweep().catch(() => undefined)
      disk.before = () => undefined
      clock.advance(1000)
      await client.get("/healthz").expect(200)
      await client.putBody(upload, delivery.body)
      await client.postFinish(upload, delivery.finish).expect(200)
      expect(await waitingIds(client, session)).toEqual([kept.id, upload.id])
    })
  }

  const small = mkdtempSync(join(tmpdir(), "knothole-small-"))
  const isMounted =
    spawnSync("mount", ["-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", small]).status === 0
  if (!isMounted) {
    rmSync(small, { recursive: true })
    console.warn("left out: T22 on a real small disk, because no tmpfs can be mounted here")
  }

  it.runIf(isMounted)(
    "T22: a really full disk of 3 MiB gets 507, keeps what was finished, and works again when there is room",
    async () => {
      try {
        const folder = join(small, "relay")
        mkdirSync(folder, { mode: 0o700 })
        under = await openRelay({ folder })
        const { client } = under
        const alice = await personAt(0)
        await client.register(alice)
        const session = await client.login(alice)
        const kept = await client.send(makeDelivery([alice], { bodyLength: 100_000 }))
        // More is promised than the disk can hold: the reservation of nothing is always granted.
        const uploads = []
        const statuses = new Set<number>()
        for (let at = 0; at < 40; at++) {
          const started = await client.postUpload([alice], { reserveBytes: 131_072 })
          statuses.add(started.status)
          if (started.status !== 201) continue
          const upload = parseStartUploadReply(started.body)
          uploads.push(upload)
          statuses.add((await client.putPart(upload, 0, random(131_072))).status)
        }
        expect([...statuses].sort((a, b) => a - b)).toEqual([200, 201, 507])
        const body = await client.bytes(`/v1/deliveries/${kept.id}/body`, session)
        expect(body.status).toBe(200)
        for (const upload of uploads) {
          const token = `Bearer ${Buffer.from(upload.token).toString("base64url")}`
          await client.delete(`/v1/uploads/${upload.id}`, token).expect(204)
        }
        await under.relay.sweep()
        const later = await client.send(makeDelivery([alice], { bodyLength: 100_000 }))
        expect(await waitingIds(client, session)).toEqual([kept.id, later.id])
        await under.relay.stop()
        under = undefined
      } finally {
        spawnSync("umount", ["-l", small])
        if (existsSync(small)) rmSync(small, { recursive: true, force: true })
      }
    },
  )
})

function kindOf(name: string): string {
  return /^p[0-9]+-/.test(name) ? "part" : name
}
