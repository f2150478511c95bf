#!/usr/bin/env node
// The program's first line, in CommonJS: Node reads an ES module on the very threads whose number is
// set here, so by the time one runs it is too late. Syncs wait in these threads for the disk, and with
// Node's four of them all else waits behind.
process.env["UV_THREADPOOL_SIZE"] ??= "8"
void import("./main.js")
