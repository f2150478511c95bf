// The certificate a relay shows where it speaks TLS itself, read again when its files change or
// somebody asks for it. Connections that stand go on under the one they began with.
import { X509Certificate } from "node:crypto"
import { readFile, stat } from "node:fs/promises"
import { isIP } from "node:net"
import { createSecureContext, type SecureContextOptions } from "node:tls"
import { equalBytes } from "../protocol/index.js"
import type { Clock } from "./clock.js"
import { ConfigError, type TlsFiles } from "./config.js"
import { failureFields, type Log } from "./log.js"

// The files are read without the Disk port: they are the operator's, often behind links, and not part
// of the data folder.

interface Pair {
  readonly cert: Uint8Array
  readonly key: Uint8Array
}

export interface Certificate {
  /** What a server needs to show it. */
  readonly context: SecureContextOptions
  /** Looks at the files; a pair that is new and good goes to `use`. */
  reload(use: (context: SecureContextOptions) => void): Promise<void>
}

/** TLS 1.3, and of 1.2 what has forward secrecy and authenticated encryption. */
const protocolOptions: SecureContextOptions = {
  minVersion: "TLSv1.2",
  ciphers: [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
  ].join(":"),
}

const dayMs = 86_400_000
/** Whoever renews by a timer does it a month before; this late it has gone wrong. */
const soonMs = 7 * dayMs

/** Throws ConfigError where the files cannot be used. */
export async function openCertificate(input: {
  readonly files: TlsFiles
  /** Names it should be good for. */
  readonly hosts: readonly string[]
  readonly clock: Clock
  readonly log: Log
}): Promise<Certificate> {
  const { files, hosts, clock, log } = input
  let seen = await readPair(files)
  let context = contextOf(seen, files)
  let refused = ""
  let remarkedMs = clock.wallMs()
  await remark(seen)

  /** What is no reason to refuse it, and will be one for clients. */
  async function remark({ cert }: Pair): Promise<void> {
    const leaf = new X509Certificate(cert)
    const leftMs = Date.parse(leaf.validTo) - clock.wallMs()
    const until = new Date(leaf.validTo).toISOString()
    if (leftMs <= 0) log("tls_certificate_expired", { until }, "alarm")
    else if (leftMs < soonMs) log("tls_certificate_expires_soon", { until }, "warning")
    if (hosts.some((host) => !covers(leaf, host))) log("tls_certificate_other_host", {}, "warning")
    // A group may share a key by its administrator's will; all the world may not.
    const { mode } = await stat(files.keyFile)
    if ((mode & 0o007) !== 0) log("tls_key_readable_by_others", {}, "warning")
  }

  return {
    get context() {
      return context
    },

    async reload(use) {
      const nowMs = clock.wallMs()
      try {
        const pair = await readPair(files)
        const isNew = !equalBytes(pair.cert, seen.cert) || !equalBytes(pair.key, seen.key)
        if (isNew || nowMs - remarkedMs >= dayMs) {
          seen = pair
          remarkedMs = nowMs
          // The check comes before anything is in use: what is refused changes nothing.
          const fresh = contextOf(pair, files)
          await remark(pair)
          if (isNew) {
            context = fresh
            use(fresh)
            log("tls_certificate_changed", { until: validUntil(pair) })
          }
        }
        refused = ""
      } catch (error) {
        const problem = error instanceof ConfigError ? error.message : ""
        // The files are looked at often; what is wrong with them is said once.
        if (problem !== "" && problem === refused) return
        refused = problem
        log("tls_certificate_refused", { problem, ...failureFields(error) }, "alarm")
      }
    },
  }
}

async function readPair({ certFile, keyFile }: TlsFiles): Promise<Pair> {
  const [cert, key] = await Promise.all([
    readOperatorFile("--tls-cert", certFile),
    readOperatorFile("--tls-key", keyFile),
  ])
  const problems = [cert, key].filter((found) => typeof found === "string")
  if (typeof cert === "string" || typeof key === "string") throw new ConfigError(problems)
  return { cert, key }
}

/** What is in it, or what is wrong with it. */
async function readOperatorFile(flag: string, path: string): Promise<Uint8Array | string> {
  try {
    return await readFile(path)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return `${flag} ${JSON.stringify(path)}: cannot be read: ${reason}`
  }
}

function contextOf({ cert, key }: Pair, { certFile, keyFile }: TlsFiles): SecureContextOptions {
  const context = { ...protocolOptions, cert: Buffer.from(cert), key: Buffer.from(key) }
  const checks: readonly (readonly [problem: string, check: () => unknown])[] = [
    [
      `--tls-cert ${JSON.stringify(certFile)}: not a certificate in PEM`,
      () => new X509Certificate(context.cert),
    ],
    [
      `--tls-key ${JSON.stringify(keyFile)}: not the certificate's key in PEM without a passphrase`,
      () => createSecureContext(context),
    ],
  ]
  for (const [problem, check] of checks) {
    try {
      check()
    } catch (error) {
      throw new ConfigError([problem], { cause: error })
    }
  }
  return context
}

function validUntil({ cert }: Pair): string {
  return new Date(new X509Certificate(cert).validTo).toISOString()
}

function covers(leaf: X509Certificate, host: string): boolean {
  return (isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)) !== undefined
}
