// Loaded before the program (NODE_OPTIONS=--import): to it `relay.test` is this machine, as it would be to
// somebody whose name server says so. Addresses on loopback are reached by plain http, so a front that
// speaks TLS needs a name.
import dns from "node:dns"
import { syncBuiltinESMExports } from "node:module"

const { lookup } = dns
dns.lookup = (name, ...rest) => lookup(name === "relay.test" ? "127.0.0.1" : name, ...rest)
syncBuiltinESMExports()
