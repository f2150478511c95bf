// Checks of public keys on Curve25519 that libraries disagree about or leave out. In BigInt because
// public keys are not secret and this runs once a key.

const p = 2n ** 255n - 19n
const d = 37095705934669439343138083508754565189542113879843219016388785533085940283555n

/** The u of every point of order 1, 2, 4 or 8, on the curve and on its twist. */
const lowOrderU = new Set([
  0n,
  1n,
  p - 1n,
  325606250916557431795983626356110631294008115727848805560023387167927233504n,
  39382357235489614581723060781553021112529911719440698176882885853963445705823n,
])

/** The y of the eight points of small order; x and -x share one, so there are five. */
const smallOrderY = new Set([
  0n,
  1n,
  p - 1n,
  2707385501144840649318225287225658788936804267575313519463743609750303402022n,
  55188659117513257062467267217118295137698188065244968500265048394206261417927n,
])

/** Canonical (below p, top bit clear) and not of low order. */
export function isGoodX25519Key(key: Uint8Array): boolean {
  if (key.length !== 32) return false
  const u = littleEndian(key)
  return u < p && !lowOrderU.has(u)
}

/** A canonical encoding of a point on the curve whose order is not small. */
export function isGoodEd25519Key(key: Uint8Array): boolean {
  if (key.length !== 32) return false
  const y = littleEndian(key) & (2n ** 255n - 1n)
  return y < p && !smallOrderY.has(y) && isOnCurve(y)
}

/** For the R of a signature: decodes to small order, in whatever encoding. */
export function isSmallOrderEd25519(encoded: Uint8Array): boolean {
  return smallOrderY.has((littleEndian(encoded) & (2n ** 255n - 1n)) % p)
}

/** -x² + y² = 1 + d·x²·y² has a solution for this y: (y² − 1)/(d·y² + 1) is a square. */
function isOnCurve(y: bigint): boolean {
  const square = (y * y) % p
  // A quotient is a square when the product is; d·y² + 1 is never zero because d is no square.
  const product = ((square - 1n + p) * (d * square + 1n)) % p
  return power(product, (p - 1n) / 2n) === 1n
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n
  let square = base
  for (let rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = (result * square) % p
    square = (square * square) % p
  }
  return result
}

function littleEndian(bytes: Uint8Array): bigint {
  let value = 0n
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] ?? 0)
  return value
}
