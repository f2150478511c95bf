/**
 * What the fault runs have come to, held against what they have to reach; runs them first, for as long
 * as it is told.
 *
 *   npm run shown -- faults [--minutes N] [--only KIND]
 */
process.argv.push("--complete")
await import("../faults/run.js")
