/** Apart from the address book, so that a command line can be read without loading any cryptography. */

const namePattern = /^[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]{0,62}$/u

/**
 * A contact's name in the one form it is kept in, or undefined when it cannot be one. Nothing that is
 * an address, a link, a comment or a flag can be a name.
 */
export function parseContactName(text: string): string | undefined {
  const name = text.normalize("NFC")
  return namePattern.test(name) && !/^knot1/i.test(name) ? name : undefined
}
