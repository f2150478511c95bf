// GET /to/ADDRESS, where the link of an inbox leads: a page without script, style or picture. It says
// the same of every address, so nobody learns from it which inboxes there are.
import { encodeAddress, hostOf } from "../../protocol/index.js"
import { pathParameter, type Route } from "../http/method-table.js"
import { replyHtml } from "../http/replies.js"
import { inboxIdBytesOf, parsePathInbox } from "../ids.js"
import { version } from "../version.js"

export function dropPageRoutes({
  origins,
}: {
  readonly origins: () => readonly string[]
}): Route[] {
  return [
    {
      path: "/to/:address",
      methods: {
        GET(req, res) {
          const inbox = parsePathInbox(pathParameter(req, "address"))
          const [origin] = origins()
          const host = origin === undefined ? undefined : hostOf(origin)
          replyHtml(res, dropPage(encodeAddress(inboxIdBytesOf(inbox), host)))
        },
      },
    },
  ]
}

function dropPage(address: string): string {
  const send = `knothole send FILE -r ${address}`
  // As the README has it.
  const install = `npm ci && npm run build && npm pack\nnpm install --global ./knothole-${version}.tgz`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>Knothole: send files to an inbox</title>
</head>
<body>
<h1>Send files to an inbox</h1>
<p>This link is for leaving files in somebody's inbox at this relay. They are sealed on your machine, so that only the inbox's owner can open them; the relay sees ciphertext and padded sizes. You need no account, and the owner need not be there.</p>
<p>In a terminal:</p>
<pre>${escapeHtml(send)}</pre>
<p>That is the program Knothole, which needs Node 20.19 or later. It is not in the npm registry yet; in a copy of its source, as its README says:</p>
<pre>${escapeHtml(install)}</pre>
<p>This page reads the same for every address. Whether there is such an inbox, the program says.</p>
</body>
</html>
`
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`)
}
