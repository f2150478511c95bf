// An authority of the test's own, made by openssl: a root, an intermediate, and certificates for relay.test.
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import path from "node:path"

export interface KeyPair {
  readonly key: string
  /** PEM; the leaf first. */
  readonly certificate: string
}

export interface Authority {
  /** For NODE_EXTRA_CA_CERTS. */
  readonly rootFile: string
  /** With its intermediate, as a server should send it. */
  readonly whole: KeyPair
  readonly withoutIntermediate: KeyPair
  readonly expired: KeyPair
  readonly forAnotherHost: KeyPair
  readonly selfSigned: KeyPair
}

/** A certificate for `name` that signs itself, and its key, each in its file. */
export function writeSelfSigned(
  files: { readonly cert: string; readonly key: string },
  { name, days }: { readonly name: string; readonly days: number },
): void {
  const [subject, alternative] = [`/CN=${name}`, `subjectAltName=DNS:${name}`]
  const wanted = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
  const told = ["-subj", subject, "-addext", alternative, "-days", String(days)]
  const out = ["-keyout", files.key, "-out", files.cert]
  execFileSync("openssl", ["req", "-x509", ...wanted, ...told, ...out], { stdio: "ignore" })
}

export function makeAuthority(folder: string): Authority {
  const file = (name: string) => path.join(folder, name)
  const openssl = (...args: string[]) =>
    execFileSync("openssl", args, { cwd: folder, stdio: "pipe" })
  const request = (name: string, subject: string) => {
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(
      "req",
      ...key,
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.csr`,
      "-subj",
      `/CN=${subject}`,
    )
  }
  const sign = (name: string, issuer: string, extensions: string, days: number) => {
    writeFileSync(file(`${name}.ext`), extensions)
    const by = ["-CA", `${issuer}.pem`, "-CAkey", `${issuer}.key`, "-CAcreateserial"]
    const out = ["-out", `${name}.pem`, "-days", String(days), "-extfile", `${name}.ext`]
    openssl("x509", "-req", "-in", `${name}.csr`, ...by, ...out)
  }
  const isAuthority = "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n"

  request("root", "Knothole test root")
  writeFileSync(file("root.ext"), isAuthority)
  const self = ["-signkey", "root.key", "-out", "root.pem", "-days", "30", "-extfile", "root.ext"]
  openssl("x509", "-req", "-in", "root.csr", ...self)
  request("intermediate", "Knothole test intermediate")
  sign("intermediate", "root", isAuthority, 30)

  const text = (name: string) => readFileSync(file(name), "utf8")
  const leaf = (name: string, host: string, days: number): KeyPair => {
    request(name, host)
    sign(name, "intermediate", `subjectAltName=DNS:${host}\nbasicConstraints=CA:false\n`, days)
    return { key: text(`${name}.key`), certificate: text(`${name}.pem`) }
  }
  const withIntermediate = ({ key, certificate }: KeyPair): KeyPair => ({
    key,
    certificate: certificate + text("intermediate.pem"),
  })
  const relay = leaf("relay", "relay.test", 10)
  request("self", "relay.test")
  writeFileSync(file("self.ext"), "subjectAltName=DNS:relay.test\n")
  const alone = ["-signkey", "self.key", "-out", "self.pem", "-days", "10", "-extfile", "self.ext"]
  openssl("x509", "-req", "-in", "self.csr", ...alone)
  return {
    rootFile: file("root.pem"),
    whole: withIntermediate(relay),
    withoutIntermediate: relay,
    // Over the moment it is made: a whole number of days ago is no choice openssl gives everywhere.
    expired: withIntermediate(leaf("expired", "relay.test", 0)),
    forAnotherHost: withIntermediate(leaf("other", "elsewhere.test", 10)),
    selfSigned: { key: text("self.key"), certificate: text("self.pem") },
  }
}
