/** What the relay reads from a Redis, which others may write to as well, and how one is named. */
import { fromSketches, sketch } from "../mutate-bytes.js"
import { fromTexts } from "../mutate-text.js"
import type { Subject } from "../subject.js"
import { judge, mustBeBytes, mustBeText, mustEqual, mustHold, type Target } from "../target.js"

const filled = (length: number, byte: number) => new Uint8Array(length).fill(byte)

function urls({ redisUrl, errors }: Subject): Target {
  return {
    name: "redis URL",
    ...fromTexts([
      "redis://127.0.0.1:6379",
      "redis://relay:pass%20word@[::1]:6380/3",
      "rediss://:secret@redis.example",
      "redis+unix:///run/redis/redis.sock?db=2",
      "redis+unix://relay:secret@/run/my%20redis.sock",
      "redis+cluster://10.0.0.1:7000,10.0.0.2:7000,[fd00::3]:7000",
      "rediss+sentinel://relay:secret@a.example:26379,b.example/main/1",
    ]),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => redisUrl.parseRedisUrl(mustBeText(input)),
        (place) => {
          const shown = redisUrl.redisUrlWithoutLogin(place)
          const { user: _user, password: _password, ...where } = place
          mustHold(
            "one place, however it is written",
            JSON.stringify(redisUrl.parseRedisUrl(shown)) === JSON.stringify(where),
          )
          mustHold("no password in what is shown", !shown.includes("@"))
          if ("node" in place) mustHold("a port", place.node.port > 0 && place.node.port < 65_536)
        },
      ),
  }
}

function records({ redisRecords, ids, errors }: Subject): Target[] {
  const place = {
    seq: 7,
    id: ids.deliveryIdOf(filled(16, 1)),
    headerHash: filled(32, 2),
    envelopeHash: filled(32, 3),
    head: filled(32, 4),
    acceptedMs: 1_700_000_000_000,
    expiresMs: 1_700_000_600_000,
  }
  const waiting = redisRecords.encodeEntry({
    ...place,
    kind: "waiting",
    sizeBytes: 2 ** 33,
    stamp: filled(244, 5),
    header: filled(184, 6),
  })
  const gone = redisRecords.encodeEntry({ ...place, kind: "gone", reason: "removed" })
  const placeLayout = [
    ["version", 1],
    ["flags", 1],
    ["opaque", 16],
    ["opaque", 32],
    ["opaque", 32],
    ["opaque", 32],
    ["number", 8],
    ["number", 8],
  ] as const
  const upload = redisRecords.encodeUpload({
    tokenHash: filled(32, 1),
    startHash: filled(32, 2),
    deleteHash: filled(32, 3),
    recipients: [ids.inboxIdOf(filled(20, 4)), ids.inboxIdOf(filled(20, 5))],
    createdMs: 1_700_000_000_000,
  })
  const part = redisRecords.encodePart({ leaf: filled(32, 1), lengthBytes: 2 ** 20 })
  return [
    {
      name: "redis entry",
      ...fromSketches([
        sketch(waiting, [
          ...placeLayout,
          ["number", 8],
          ["number", 2],
          ["opaque", 244],
          ["number", 4],
          ["opaque", 184],
        ]),
        sketch(gone, [...placeLayout, ["number", 1]]),
      ]),
      run: (input) =>
        judge(
          [errors.FormatError],
          () => redisRecords.parseEntry(mustBeBytes(input), 7),
          (found) => mustEqual("entry", redisRecords.encodeEntry(found), mustBeBytes(input)),
        ),
    },
    {
      name: "redis upload",
      ...fromSketches([
        sketch(upload, [
          ["version", 1],
          ["opaque", 96],
          ["number", 8],
          ["number", 2],
          ["opaque", 40],
        ]),
      ]),
      run: (input) =>
        judge(
          [errors.FormatError],
          () => redisRecords.parseUpload(mustBeBytes(input)),
          (found) => mustEqual("upload", redisRecords.encodeUpload(found), mustBeBytes(input)),
        ),
    },
    {
      name: "redis part",
      ...fromSketches([
        sketch(part, [
          ["opaque", 32],
          ["number", 4],
        ]),
      ]),
      run: (input) =>
        judge(
          [errors.FormatError],
          () => redisRecords.parsePart(mustBeBytes(input), 3),
          (found) => mustEqual("part", redisRecords.encodePart(found), mustBeBytes(input)),
        ),
    },
  ]
}

/** Replies of scripts, as the client hands them over. */
function replies({ redisRecords, errors }: Subject): Target {
  const { Reply } = redisRecords
  return {
    name: "redis reply",
    ...fromTexts(["0", "7", "9007199254740991"]),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => new Reply(Buffer.from(mustBeText(input))).count(),
        (count) => mustHold("a count", Number.isSafeInteger(count) && count >= 0),
      ),
  }
}

export function redisTargets(subject: Subject): Target[] {
  return [urls(subject), ...records(subject), replies(subject)]
}
