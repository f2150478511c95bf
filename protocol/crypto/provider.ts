// What the protocol needs from its surroundings. crypto/node.ts and crypto/browser.ts each implement
// it; "#crypto-provider" names the one in use. Both must pass the same vectors. All of it is
// synchronous but scrypt; RSA (rsa.ts), X-Wing (xwing.ts) and Argon2id (argon2id.ts) are the same
// code everywhere.

/** Draws `length` random bytes. `name` says what for, so that vectors can be reproduced. */
export type Random = (length: number, name?: string) => Uint8Array

export interface CryptoProvider {
  random: Random

  /** SHA-256 of the concatenation. */
  sha256(...parts: readonly Uint8Array[]): Uint8Array
  /** BLAKE3-256 of the concatenation. */
  blake3(...parts: readonly Uint8Array[]): Uint8Array
  hmacSha256(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array
  hkdfSha256(input: HkdfInput): Uint8Array

  /** AES-256-GCM; the result is ciphertext ‖ 16-byte tag. */
  gcmSeal(input: GcmSealInput): Uint8Array
  /** Throws OpenError. */
  gcmOpen(input: GcmOpenInput): Uint8Array

  aes128Ctr(input: Aes128CtrInput): Uint8Array
  aes128CbcMac(input: Aes128CbcMacInput): Uint8Array

  x25519PublicKey(secret: Uint8Array): Uint8Array
  /** Throws FormatError when the result is zero, which a low-order public key makes it. */
  x25519(secret: Uint8Array, publicKey: Uint8Array): Uint8Array
  x25519KeyPair(random?: Random): X25519KeyPair

  ed25519PublicKey(seed: Uint8Array): Uint8Array
  ed25519Sign(seed: Uint8Array, message: Uint8Array): Uint8Array
  /**
   * Cofactorless, as RFC 8032 §5.1.7 permits; refuses keys and nonces of small order and encodings
   * that are not canonical, so that both providers agree on every input.
   */
  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean

  scrypt(input: ScryptInput): Promise<Uint8Array>
}

/** An empty `salt` is the zero salt of RFC 5869. */
export interface HkdfInput {
  readonly ikm: Uint8Array
  readonly salt: Uint8Array
  readonly info: Uint8Array
  readonly length: number
}

/** `key` is 32 bytes. `nonce` is 12 bytes and may be left out, as zeros, for a key that seals once. */
export interface GcmSealInput {
  readonly key: Uint8Array
  readonly nonce?: Uint8Array
  readonly aad?: Uint8Array
  readonly plaintext: Uint8Array
}

export interface GcmOpenInput {
  readonly key: Uint8Array
  readonly nonce?: Uint8Array
  readonly aad?: Uint8Array
  readonly ciphertext: Uint8Array
}

/**
 * CTR keystream from the counter block `iv`, `skip` bytes (0 to 15) of it dropped, XORed on `data`.
 * Written to `out` when given, which has the length of `data` and may be `data` itself.
 */
export interface Aes128CtrInput {
  readonly key: Uint8Array
  readonly iv: Uint8Array
  readonly skip?: number
  readonly data: Uint8Array
  readonly out?: Uint8Array
}

/** CBC-MAC from `iv` over `data`, zero-padded to whole blocks. No data gives `iv` itself. */
export interface Aes128CbcMacInput {
  readonly key: Uint8Array
  readonly iv: Uint8Array
  readonly data: Uint8Array
}

export interface X25519KeyPair {
  readonly secret: Uint8Array
  readonly publicKey: Uint8Array
}

/** r is 8 and p is 1, so memory is 2^logN KiB. */
export interface ScryptInput {
  readonly password: Uint8Array
  readonly salt: Uint8Array
  readonly logN: number
  readonly length: number
}
