/** How a run ended, for the shell. */
export const exitCodes = {
  done: 0,
  failed: 1,
  usage: 2,
  /** Unknown inbox, not found, expired, taken. */
  notThere: 3,
  /** Did not verify, or was refused: passphrase, key, login. */
  refused: 4,
  /** The relay cannot be reached, is none, or is busy: worth another try. */
  unreachable: 5,
  /** A quota, a limit or a disk is full. */
  full: 8,
  interrupted: 130,
} as const

export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]
