// NaCl's box (X25519, HSalsa20, XSalsa20-Poly1305), only for proofs of login. tweetnacl's own
// scalarMult accepts low-order points, so the Diffie-Hellman is the provider's and the rest tweetnacl's.
import nacl from "tweetnacl"
import { utf8 } from "../bytes.js"

type HSalsa20 = (out: Uint8Array, input: Uint8Array, key: Uint8Array, c: Uint8Array) => number

// The cast: tweetnacl exports `lowlevel`, but its type declarations leave it out.
const { crypto_core_hsalsa20 } = (
  nacl as typeof nacl & { readonly lowlevel: { readonly crypto_core_hsalsa20: HSalsa20 } }
).lowlevel

const sigma = utf8("expand 32-byte k")
const zeros = new Uint8Array(16)

export const boxNonceBytes: number = 24

/** What nacl.box.before makes of two keys, from their X25519 result. */
export function boxKey(shared: Uint8Array): Uint8Array {
  const key = new Uint8Array(32)
  crypto_core_hsalsa20(key, zeros, shared, sigma)
  return key
}

export interface BoxInput {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
}

/** 16 bytes longer than `message`. */
export function boxSeal({ key, nonce, message }: BoxInput & { message: Uint8Array }): Uint8Array {
  return nacl.secretbox(message, nonce, key)
}

/** Undefined when it does not open. */
export function boxOpen({
  key,
  nonce,
  box,
}: BoxInput & { box: Uint8Array }): Uint8Array | undefined {
  return nacl.secretbox.open(box, nonce, key) ?? undefined
}
