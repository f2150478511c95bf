import { expect, test } from "vitest"
import { carryLargeFile } from "./large-delivery.js"

// `npm run shown -- memory` does the same with 10 GiB; memory that grew with size would show here too.
test("T33: a delivery of 1 GiB leaves sender, relay and recipient each under 200 MiB", async () => {
  const { same, senderPeakMiB, relayPeakMiB, recipientPeakMiB } = await carryLargeFile(1024)
  expect(same).toBe(true)
  expect(senderPeakMiB).toBeLessThan(200)
  expect(relayPeakMiB).toBeLessThan(200)
  expect(recipientPeakMiB).toBeLessThan(200)
}, 240_000)
