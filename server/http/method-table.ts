// A path and what it does, method by method. Anything else is refused by name.
import type { Express, Request, Response } from "express"
import { RelayRefusal } from "../../protocol/index.js"
import { replyPreflight } from "./replies.js"

export type Handler = (req: Request, res: Response) => Promise<void> | void
export type Method = "GET" | "PUT" | "POST" | "DELETE"

export interface Route {
  readonly path: string
  readonly methods: Readonly<Partial<Record<Method, Handler>>>
}

/** A refusal that goes with the list of what would be allowed. */
export class MethodRefusal extends RelayRefusal {
  readonly allow: string

  constructor(allow: string) {
    super("method_not_allowed")
    this.allow = allow
  }
}

export function mount(app: Express, routes: readonly Route[]): void {
  for (const { path, methods } of routes) {
    const table = new Map<string, Handler>(Object.entries(methods))
    const allowed = [...table.keys(), "OPTIONS"]
    app.all(path, (req, res) => {
      if (req.method === "OPTIONS") return replyPreflight(res, allowed)
      const handler = table.get(req.method)
      if (handler === undefined) throw new MethodRefusal(allowed.join(", "))
      // The router passes a rejected promise on to the error handler.
      return handler(req, res)
    })
  }
}

/** A parameter of the path. The router has put it there. */
export function pathParameter(req: Request, name: string): string {
  const value = req.params[name]
  if (typeof value !== "string") throw new RelayRefusal("not_found")
  return value
}
