/** The agent that reaches a relay: through its proxy where it has one, else directly. */
import type http from "node:http"
import { RelayUnreachable } from "./errors.js"
import type { Proxies } from "./proxies.js"
import { readingAgent } from "./reading-agent.js"

/** Throws RelayUnreachable for an onion service without a proxy. */
export function relayAgent(
  origin: string,
  proxies: Proxies | undefined,
  options: http.AgentOptions,
): http.Agent {
  const proxied = proxies?.agentFor(origin, options)
  if (proxied !== undefined) return proxied
  const { protocol, hostname } = new URL(origin)
  // It has no address in the network's own naming, and asking for one would tell its name.
  if (hostname.endsWith(".onion")) {
    throw new RelayUnreachable(
      origin,
      `${origin} is an onion service, which only Tor can reach; start Tor, and say --proxy socks5h://127.0.0.1:9050`,
      { retryable: false },
    )
  }
  return readingAgent({ secure: protocol === "https:", ...options })
}
