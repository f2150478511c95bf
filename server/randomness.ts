// The port to chance: everything the relay draws comes through here, so that a test can repeat a run.
import { type Random, random } from "../protocol/index.js"

export type Randomness = Random

export const systemRandomness: Randomness = random
