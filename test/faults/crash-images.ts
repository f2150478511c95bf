// What a power cut may leave of a disk (memory-disk.ts has the rules): all of it where that is little,
// and otherwise what lies nearest to everything and to nothing, with draws in between.
import type { Draws } from "../fuzz/random.js"
import {
  applied,
  type DiskState,
  type FileState,
  type NameChange,
  type NodeId,
  type NodeState,
  renamed,
  rootId,
  shareName,
} from "./memory-disk.js"

const sectorBytes = 512

/** One way in which a cut may fall. */
export interface Cut {
  /** Changes of names that reached the disk. */
  readonly kept: ReadonlySet<NameChange>
  /** Of each file with changes pending, which of its `contentsAfterCut`; the first is all of them lost. */
  readonly contents: ReadonlyMap<NodeId, number>
}

const known = new WeakMap<FileState, readonly Uint8Array[]>()

/** What a file may hold after a cut, lost first and kept second. */
export function contentsAfterCut(file: FileState): readonly Uint8Array[] {
  const before = known.get(file)
  if (before !== undefined) return before
  const contents = allContents(file)
  known.set(file, contents)
  return contents
}

function allContents({ durable, pending }: FileState): readonly Uint8Array[] {
  const kept = pending.reduce(applied, durable)
  const all = [durable, kept, ...torn(durable, kept)]
  const different = new Map(all.map((bytes) => [Buffer.from(bytes).toString("latin1"), bytes]))
  return [...different.values()]
}

function torn(durable: Uint8Array, kept: Uint8Array): Uint8Array[] {
  const changed: number[] = []
  for (let at = 0; at < kept.length; at += sectorBytes) {
    const sector = (bytes: Uint8Array): Buffer => Buffer.from(bytes.subarray(at, at + sectorBytes))
    if (!sector(kept).equals(sector(durable))) changed.push(at)
  }
  const variants: Uint8Array[] = []
  const size = Math.max(durable.length, kept.length)
  const mix = (lengthBytes: number, isKept: (at: number) => boolean): Uint8Array => {
    const bytes = new Uint8Array(lengthBytes)
    bytes.set(durable.subarray(0, lengthBytes))
    for (const at of changed) {
      if (at < lengthBytes && isKept(at))
        bytes.set(kept.subarray(at, Math.min(at + sectorBytes, lengthBytes)), at)
    }
    return bytes
  }
  // In length only, the rest as it was or zeros.
  if (kept.length > durable.length) variants.push(mix(kept.length, () => false))
  // Large files are torn near their ends and in their middle.
  const borders = changed.length <= 16 ? changed.slice(1) : pickBorders(changed)
  for (const border of borders) {
    variants.push(mix(size, (at) => at < border))
    variants.push(mix(size, (at) => at >= border))
    if (kept.length > durable.length) variants.push(mix(border, () => true))
  }
  return variants
}

function pickBorders(changed: readonly number[]): number[] {
  const middle = changed.length >> 1
  return [1, 2, middle, changed.length - 1].flatMap((at) => changed[at] ?? [])
}

/** The changes of names that a cut may undo, in the order they were made. */
function pendingNames({ nodes }: DiskState): readonly NameChange[] {
  const pending = [...nodes.values()].flatMap((one) => (one.kind === "folder" ? one.pending : []))
  return [...new Set(pending)].toSorted((one, other) => one.number - other.number)
}

/** With what each one cannot be without. */
function needs(changes: readonly NameChange[]): ReadonlyMap<NameChange, readonly NameChange[]> {
  const pending = new Set(changes)
  return new Map(
    changes.map((change, at) => {
      const earlier = changes.slice(0, at).filter((one) => shareName(one, change))
      const { after } = change
      return [change, after !== undefined && pending.has(after) ? [after, ...earlier] : earlier]
    }),
  )
}

/** The disk after the cut, with nothing left that is not durable. */
export function diskAfter({ nodes, ...rest }: DiskState, { kept, contents }: Cut): DiskState {
  const after = new Map<NodeId, NodeState>()
  const copy = (id: NodeId): void => {
    if (after.has(id)) return
    const node = nodes.get(id)
    if (node === undefined) return
    if (node.kind === "file") {
      const bytes = contentsAfterCut(node)[contents.get(id) ?? 0] ?? node.durable
      after.set(id, { ...node, contents: bytes, durable: bytes, pending: [] })
      return
    }
    const names = node.pending
      .filter((one) => kept.has(one))
      .reduce((before, change) => renamed(before, change, id), node.durable)
    after.set(id, { ...node, names, durable: names, pending: [] })
    for (const each of names.values()) copy(each)
  }
  copy(rootId)
  return { nodes: after, ...rest }
}

export interface Cuts {
  readonly cuts: readonly Cut[]
  /** These are all there are. */
  readonly isAll: boolean
}

/** How a power cut may fall at this moment: all ways if they are at most so many. */
export function cutsOf(state: DiskState, most: number, draws: Draws): Cuts {
  const all = everyCut(state, most)
  return all === undefined
    ? { cuts: someCuts(state, most, draws), isAll: false }
    : { cuts: all, isAll: true }
}

/** The files with changes pending that have a name after a cut that keeps these. */
function filesAtStake(state: DiskState, kept: ReadonlySet<NameChange>): NodeId[] {
  const { nodes } = diskAfter(state, { kept, contents: new Map() })
  return [...nodes.keys()].filter((id) => {
    const node = state.nodes.get(id)
    return node?.kind === "file" && node.pending.length > 0
  })
}

function variantsOf(state: DiskState, id: NodeId): number {
  const node = state.nodes.get(id)
  return node?.kind === "file" ? contentsAfterCut(node).length : 1
}

function everyCut(state: DiskState, most: number): Cut[] | undefined {
  const changes = pendingNames(state)
  const needed = needs(changes)
  let sets: ReadonlySet<NameChange>[] = [new Set()]
  for (const change of changes) {
    const more = sets
      .filter((set) => (needed.get(change) ?? []).every((one) => set.has(one)))
      .map((set) => new Set([...set, change]))
    sets = [...sets, ...more]
    if (sets.length > most) return undefined
  }
  // A name that changes under a folder without a name changes nothing.
  const seen = new Set<string>()
  const cuts: Cut[] = []
  for (const kept of sets) {
    const key = shapeOf(diskAfter(state, { kept, contents: new Map() }))
    if (seen.has(key)) continue
    seen.add(key)
    let contents: ReadonlyMap<NodeId, number>[] = [new Map()]
    for (const id of filesAtStake(state, kept)) {
      const variants = Array.from({ length: variantsOf(state, id) }, (_, at) => at)
      contents = contents.flatMap((map) => variants.map((at) => new Map([...map, [id, at]])))
      if (cuts.length + contents.length > most) return undefined
    }
    cuts.push(...contents.map((map) => ({ kept, contents: map })))
  }
  return cuts
}

/** Which names stand for which files and folders. */
function shapeOf({ nodes }: DiskState): string {
  return [...nodes]
    .flatMap(([id, node]) => (node.kind === "folder" ? [`${id}:`, ...shape(node.names)] : []))
    .join(" ")
}

function shape(names: ReadonlyMap<string, NodeId>): string[] {
  return [...names].map(([name, id]) => `${name}=${id}`).toSorted()
}

function someCuts(state: DiskState, most: number, draws: Draws): Cut[] {
  const changes = pendingNames(state)
  const needed = needs(changes)
  const withNeeds = (set: Set<NameChange>, change: NameChange): void => {
    if (set.has(change)) return
    set.add(change)
    for (const one of needed.get(change) ?? []) withNeeds(set, one)
  }
  const closed = (wanted: readonly NameChange[]): ReadonlySet<NameChange> => {
    const set = new Set<NameChange>()
    for (const change of wanted) withNeeds(set, change)
    return set
  }
  /** Everything but this one and what cannot be without it. */
  const without = (...lost: readonly NameChange[]): ReadonlySet<NameChange> =>
    new Set(changes.filter((one) => !lost.some((each) => closed([one]).has(each))))
  const everything = new Set(changes)
  const files = (kept: ReadonlySet<NameChange>, variant: number): Map<NodeId, number> =>
    new Map(filesAtStake(state, kept).map((id) => [id, variant]))

  const cuts: Cut[] = []
  for (const variant of [0, 1, 2]) {
    cuts.push({ kept: everything, contents: files(everything, variant) })
    cuts.push({ kept: new Set(), contents: files(new Set(), variant) })
  }
  for (const change of changes) {
    cuts.push({ kept: without(change), contents: files(without(change), 1) })
    cuts.push({ kept: closed([change]), contents: files(closed([change]), 1) })
    cuts.push({ kept: closed([change]), contents: files(closed([change]), 0) })
  }
  for (const id of filesAtStake(state, everything)) {
    for (let variant = 0; variant < variantsOf(state, id); variant++) {
      for (const rest of [0, 1]) {
        const contents = files(everything, rest).set(id, variant)
        cuts.push({ kept: everything, contents })
      }
    }
  }
  const leastDrawn = most >> 2
  while (cuts.length > most - leastDrawn) cuts.splice(draws.below(cuts.length), 1)
  while (cuts.length < most) {
    const share = draws.pick([0.2, 0.5, 0.8])
    const kept = draws.chance(0.3)
      ? without(draws.pick(changes), draws.pick(changes))
      : closed(changes.filter(() => draws.chance(share)))
    const contents = new Map(
      filesAtStake(state, kept).map((id) => [id, draws.below(variantsOf(state, id))]),
    )
    cuts.push({ kept, contents })
  }
  return cuts
}
