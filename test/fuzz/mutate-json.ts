/**
 * Hostile JSON documents: a valid one as a tree, changed member by member, and then printed, because
 * a member that stands twice or a number out of range exists in the text alone.
 */
import type { Draws } from "./random.js"
import { mutateText } from "./mutate-text.js"

export type Json =
  string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json }

type Tree =
  | { kind: "object"; members: { name: string; value: Tree }[] }
  | { kind: "list"; items: Tree[] }
  | { kind: "raw"; text: string }

function grow(value: Json): Tree {
  if (value === null || typeof value !== "object")
    return { kind: "raw", text: JSON.stringify(value) }
  if (isList(value)) return { kind: "list", items: value.map(grow) }
  const members = Object.entries(value).map(([name, member]) => ({ name, value: grow(member) }))
  return { kind: "object", members }
}

// Array.isArray does not narrow a readonly list.
function isList(value: Json): value is readonly Json[] {
  return Array.isArray(value)
}

function print(tree: Tree): string {
  if (tree.kind === "raw") return tree.text
  if (tree.kind === "list") return `[${tree.items.map(print).join(",")}]`
  const members = tree.members.map(({ name, value }) => `${JSON.stringify(name)}:${print(value)}`)
  return `{${members.join(",")}}`
}

/** Every place a value stands at, and how to put another there. */
function placesOf(tree: Tree, set: (by: Tree) => void, found: Place[]): void {
  found.push({ tree, set })
  if (tree.kind === "list") {
    tree.items.forEach((item, index) =>
      placesOf(item, (by) => void (tree.items[index] = by), found),
    )
  } else if (tree.kind === "object") {
    for (const member of tree.members) {
      placesOf(member.value, (by) => void (member.value = by), found)
    }
  }
}

interface Place {
  readonly tree: Tree
  readonly set: (by: Tree) => void
}

const otherValues = "null true false 0 -0 -1 1 1.5 1e3 1E400 -1e400 5e-324 255 256 2147483648 1.0"
  .split(" ")
  .concat(
    "4294967296 9007199254740991 9007199254740992 9007199254740993 18446744073709551616".split(" "),
  )
  .concat("68719476736 68719476737 1048575 [] {} [[]] [null] [0]".split(" "))
  .concat(
    '"" "0" "a" "\\u0000" "\\ud800" "\\u202e" "AA==" "AB" "A" "AA\\t" "__proto__" "open"'.split(
      " ",
    ),
  )
  .concat('"waiting" "about:blank" {"length":1} {"0":1} {"then":1} {"toString":1}'.split(" "))
  .concat('{"__proto__":{"polluted":1}}')

const names =
  "__proto__ constructor prototype toString hasOwnProperty length then x id ID seq limit status"
    .split(" ")
    .concat("envelope tombstone".split(" "), "", "a".repeat(2000))

function raw(text: string): Tree {
  return { kind: "raw", text }
}

function nested(draws: Draws): Tree {
  const depth = draws.pick([10, 100, 1000, 20_000])
  return draws.chance(0.5)
    ? raw("[".repeat(depth) + "]".repeat(depth))
    : raw('{"a":'.repeat(depth) + "1" + "}".repeat(depth))
}

/** Another spelling or a neighbour of a string or number. */
function alter(draws: Draws, text: string): string {
  if (!text.startsWith('"')) {
    return draws.pick([`${text}.0`, `${text}e0`, `-${text}`, `${text}0`, `"${text}"`, `0.${text}`])
  }
  // What an earlier change left here may be no JSON any more.
  if (!/^"[^"\\]*"$/.test(text)) return `${text} `
  const value = text.slice(1, -1)
  const last = value.at(-1) ?? "A"
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
  const neighbour = alphabet[(alphabet.indexOf(last) + 1) % 64] ?? "A"
  return JSON.stringify(
    draws.pick([
      `${value}=`,
      `${value}A`,
      value.slice(0, -1),
      value.slice(0, -1) + neighbour,
      value.replaceAll("-", "+").replaceAll("_", "/"),
      value.toUpperCase(),
      ` ${value}`,
      `${value}\n`,
      value + value,
      value.repeat(20),
      mutateText(draws, value, [value]),
    ]),
  )
}

function mutateTree(draws: Draws, root: Tree, donors: readonly Tree[]): Tree {
  let top = root
  const places: Place[] = []
  placesOf(root, (by) => void (top = by), places)
  const { tree, set } = draws.pick(places)
  const donor = (): Tree => {
    const found: Place[] = []
    placesOf(draws.pick(donors), () => undefined, found)
    // A copy, because a tree that came to stand inside itself would never end.
    return structuredClone(draws.pick(found).tree)
  }
  switch (draws.below(10)) {
    case 0:
      set(raw(draws.pick(otherValues)))
      break
    case 1:
      set(donor())
      break
    case 2:
      set(nested(draws))
      break
    case 3:
      if (tree.kind === "raw")
        set(raw(draws.chance(0.5) ? '"'.concat("A".repeat(5000), '"') : "[]"))
      else if (tree.kind === "list")
        set(raw(`[${Array.from({ length: 300 }, () => "0").join(",")}]`))
      else set({ kind: "list", items: [tree] })
      break
    case 4:
    case 5:
      if (tree.kind === "raw") set(raw(alter(draws, tree.text)))
      else if (tree.kind === "list") tree.items.reverse()
      else tree.members.reverse()
      break
    case 6:
      if (tree.kind === "object") tree.members.splice(draws.below(tree.members.length), 1)
      else if (tree.kind === "list") tree.items.splice(draws.below(tree.items.length), 1)
      else set(raw(alter(draws, tree.text)))
      break
    case 7:
      if (tree.kind === "object") {
        const at = draws.below(tree.members.length + 1)
        const value = draws.chance(0.5) ? raw(draws.pick(otherValues)) : donor()
        tree.members.splice(at, 0, { name: draws.pick(names), value })
      } else if (tree.kind === "list") tree.items.push(donor())
      else set(raw(draws.pick(otherValues)))
      break
    case 8:
      if (tree.kind === "object" && tree.members.length > 0) {
        const member = draws.pick(tree.members)
        const value = draws.chance(0.5)
          ? raw(draws.pick(otherValues))
          : structuredClone(member.value)
        tree.members.splice(draws.below(tree.members.length + 1), 0, { name: member.name, value })
      } else if (tree.kind === "list" && tree.items.length > 0) {
        tree.items.splice(
          draws.below(tree.items.length + 1),
          0,
          structuredClone(draws.pick(tree.items)),
        )
      } else set(raw(draws.pick(otherValues)))
      break
    default:
      if (tree.kind === "object" && tree.members.length > 0) {
        const member = draws.pick(tree.members)
        member.name = draws.chance(0.5) ? draws.pick(names) : member.name.toUpperCase()
      } else set(donor())
  }
  return top
}

export function mutateJson(draws: Draws, own: Json, others: readonly Json[]): string {
  let tree = grow(own)
  const donors = others.map(grow)
  const count = draws.chance(0.03) ? 0 : draws.chance(0.65) ? 1 : draws.between(2, 4)
  for (let i = 0; i < count; i++) tree = mutateTree(draws, tree, donors)
  const text = print(tree)
  // Mostly a document still, since a parser behind JSON.parse sees nothing else.
  return draws.chance(0.03) ? mutateText(draws, text, [text]) : text
}

export function fromJson(values: readonly Json[]): {
  readonly seeds: readonly string[]
  readonly make: (draws: Draws) => string
} {
  return {
    seeds: values.map((value) => JSON.stringify(value)),
    make: (draws) => mutateJson(draws, draws.pick(values), values),
  }
}
