/** What may be wrong between a relay and its users: why it matters, and what mends it. */

export type FindingCode =
  | "name_resolution"
  | "unreachable"
  | "tls_broken"
  | "relay_down"
  | "redirect"
  | "not_a_relay"
  | "protocol_version"
  | "old_relay"
  | "certificate_expired"
  | "certificate_not_yet_valid"
  | "certificate_self_signed"
  | "certificate_wrong_host"
  | "certificate_chain"
  | "certificate_untrusted"
  | "unknown_origin"
  | "trusted_proxies"
  | "clock"
  | "cors"
  | "range"
  | "body_limit"
  | "buffering"
  | "read_timeout"
  | "disk_refuses"
  | "disk_full"
  | "index"
  | "probe_failed"

export interface Finding {
  readonly code: FindingCode
  /** What was seen. May quote what a relay or a proxy said. */
  readonly what: string
  readonly why: string
  readonly mend: string
}

export function finding(code: FindingCode, what: string): Finding {
  return { code, what, ...meanings[code] }
}

/** Nothing can be had of a relay of which one of these is found. */
export const fatal: ReadonlySet<FindingCode> = new Set<FindingCode>([
  "name_resolution",
  "unreachable",
  "tls_broken",
  "relay_down",
  "not_a_relay",
])

const restart = "Start the relay with"
const meanings: Readonly<Record<FindingCode, { readonly why: string; readonly mend: string }>> = {
  name_resolution: {
    why: "Nobody finds the relay by this name.",
    mend: "Check the spelling; give the name an A or AAAA record; a new one takes a while to be known.",
  },
  unreachable: {
    why: "Nobody can send or pick up.",
    mend: "Check that the relay and what stands before it run, and that firewalls let the port through.",
  },
  tls_broken: {
    why: "Programs and browsers alike give up before they ask anything.",
    mend: "Check that this port speaks TLS 1.2 or 1.3 (Caddy: a site with a host name; nginx: listen 443 ssl).",
  },
  relay_down: {
    why: "The proxy runs and the relay behind it does not answer, so nobody can send or pick up.",
    mend: "Start the relay, and compare its --listen with the proxy (Caddy: reverse_proxy; nginx: proxy_pass).",
  },
  redirect: {
    why: "Programs do not follow it: what they carry is meant for one host only. Addresses have to name the host that answers.",
    mend: "Use the host it points to in addresses and --public-url, or let the relay answer here (Caddy: no redir; nginx: no return 301).",
  },
  not_a_relay: {
    why: "Nobody can send or pick up here.",
    mend: "Check host and port, and that the whole host is passed on to the relay, without a path before /v1/ (Caddy: reverse_proxy 127.0.0.1:8787; nginx: location / { proxy_pass http://127.0.0.1:8787; }).",
  },
  protocol_version: {
    why: "This program and the relay do not understand each other.",
    mend: "Update the older of the two.",
  },
  old_relay: {
    why: "It cannot be seen from here whether a proxy limits, keeps back or cuts off what passes.",
    mend: "Update the relay, or let the proxy pass /v1/probe on.",
  },
  certificate_expired: {
    why: "Every program and browser refuses to connect.",
    mend: "Renew it (Caddy does so by itself; certbot renew and nginx -s reload), and check the clock of the machine that renews.",
  },
  certificate_not_yet_valid: {
    why: "Every program refuses to connect until then.",
    mend: "Check the clocks of this machine and of the one that made the certificate.",
  },
  certificate_self_signed: {
    why: "Nobody but those who installed it can tell the relay from an impostor, and programs refuse.",
    mend: "Get one from an authority that is known everywhere (Caddy does so by itself for a public name; nginx: certbot --nginx).",
  },
  certificate_wrong_host: {
    why: "Programs and browsers refuse: the certificate is for other names.",
    mend: "Get one for this name (Caddy: the site's address; nginx: certbot --nginx -d NAME, and server_name), or use a name that it has.",
  },
  certificate_chain: {
    why: "Browsers often fetch a missing intermediate themselves, so the page works there; Node and curl do not, so programs refuse to connect.",
    mend: "Send the whole chain (nginx: ssl_certificate has to name fullchain.pem, not cert.pem; Caddy: tls fullchain.pem key.pem).",
  },
  certificate_untrusted: {
    why: "Programs on machines that do not know this authority refuse to connect.",
    mend: "Use an authority that is known everywhere, or give its root to each user (NODE_EXTRA_CA_CERTS=root.crt).",
  },
  unknown_origin: {
    why: "Nobody can open an inbox or log in by this URL: a login is bound to the name it was made for.",
    mend: `${restart} --public-url and this URL besides those it has.`,
  },
  trusted_proxies: {
    why: "All who come through this proxy count as one client.",
    mend: `${restart} --trusted-proxies 1 behind one proxy, 2 behind two (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; Caddy does that by itself).`,
  },
  clock: {
    why: "Deliveries expire early or late, logins fail, and times shown are wrong.",
    mend: "Switch time synchronisation on where the clock is off (timedatectl set-ntp true).",
  },
  cors: {
    why: "Drop pages and other pages in a browser cannot use this relay.",
    mend: "Pass on what the relay says, once (Caddy: no header or header_down for Access-Control-*; nginx: no add_header and no proxy_hide_header for it, and no answer of its own to OPTIONS).",
  },
  range: {
    why: "An interrupted download cannot go on where it stopped, and single files cannot be fetched.",
    mend: 'Pass the header on, and cache nothing (Caddy: no header_up -Range; nginx: no proxy_set_header Range "", no proxy_cache, no slice).',
  },
  body_limit: {
    why: "Uploads fail: a request carries at least one part of 1 MiB, and the last one a list of all entries, which for many files takes more.",
    mend: "Allow 72 MiB (Caddy: no request_body max_size below 72MB; nginx: client_max_body_size 72m).",
  },
  buffering: {
    why: "Everything is written to the proxy's disk first, senders see progress that is none, and slow connections time out.",
    mend: "Pass bytes on as they come (Caddy: no request_buffers and response_buffers, flush_interval -1; nginx: proxy_request_buffering off; proxy_buffering off).",
  },
  read_timeout: {
    why: "A long poll is silent for up to 30 s, so whoever waits for deliveries is cut off again and again.",
    mend: "Allow 75 s of silence (Caddy: no read_timeout or response_header_timeout below it in reverse_proxy's transport; nginx: proxy_read_timeout 75s).",
  },
  disk_refuses: {
    why: "Nothing can be sent, and deliveries may not be removed when they are taken.",
    mend: "See the relay's log; check that its data folder's disk is mounted, has room, and may be written by the relay's user.",
  },
  disk_full: {
    why: "New deliveries are refused until there is room.",
    mend: `Make room, or add some; ${restart.toLowerCase()} --disk-headroom and a smaller size if it keeps back too much.`,
  },
  index: {
    why: "Until it is whole nobody can send or pick up.",
    mend: "Wait a while and look again; if it stays so, the relay's log says why.",
  },
  probe_failed: {
    why: "Something between here and the relay does not let everything pass.",
    mend: "Compare the proxy's configuration with deploy/Caddyfile or deploy/nginx.conf.",
  },
}
