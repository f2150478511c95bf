import type { Certificate } from "./asking.js"
import { finding, type Finding } from "./findings.js"

/** What is wrong with a certificate, by the word OpenSSL or Node has for it. */
export function judgeCertificate(
  { problem, chain }: Certificate,
  host: string,
): Finding | undefined {
  if (problem === undefined) return undefined
  const [own] = chain
  const last = chain.at(-1)
  switch (problem) {
    case "CERT_HAS_EXPIRED":
      return finding(
        "certificate_expired",
        `its certificate expired at ${showDate(own?.validToMs)}`,
      )
    case "CERT_NOT_YET_VALID":
      return finding(
        "certificate_not_yet_valid",
        `its certificate is valid only from ${showDate(own?.validFromMs)}`,
      )
    case "ERR_TLS_CERT_ALTNAME_INVALID":
      return finding("certificate_wrong_host", `its certificate is not for ${host}`)
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
      return finding("certificate_self_signed", "its certificate is signed by itself")
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
      return finding(
        "certificate_chain",
        `it sends its own certificate alone, and not that of ${last?.issuer ?? "its issuer"}, which signed it`,
      )
    default:
      return finding(
        "certificate_untrusted",
        `its certificate leads to ${last?.issuer ?? "an issuer"}, which this machine does not know (${problem})`,
      )
  }
}

function showDate(ms: number | undefined): string {
  return ms === undefined || Number.isNaN(ms) ? "an unknown time" : new Date(ms).toISOString()
}
