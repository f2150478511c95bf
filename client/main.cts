#!/usr/bin/env node
// The program's first line, in CommonJS: Node reads an ES module on the very threads whose number is
// set here, so by the time one runs it is too late. Syncs wait in these threads for the disk: with Node's
// four of them all else waits behind, and the more sync at once, the more files share one commit of the
// file system (1,024 parts written and synced took two thirds of the time with 16 that they took with 4).
if (process.env["UV_THREADPOOL_SIZE"] === undefined) {
  process.env["UV_THREADPOOL_SIZE"] = "16"
  // Whatever asks for a file starts the threads, and nobody asks how many afterwards: least of all a program
  // that is run from here.
  process.getBuiltinModule("node:fs").stat(".", () => {})
  delete process.env["UV_THREADPOOL_SIZE"]
}
// Until the end says otherwise: a run that has nothing left to wait for and is not done has failed, and
// Node would call it a success.
process.exitCode = 1
void import("./main.js")
