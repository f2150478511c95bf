/**
 * Names that are one plain name at the sender and something else on Windows: another folder, a device,
 * a stream of another file, or a name that loses its end.
 */
const devices = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:$|[. :])/i
// oxlint-disable-next-line no-control-regex -- these are what Windows refuses
const refusedCharacters = /[\u0000-\u001f<>:"|?*\\]/
const lostEnd = /[. ]$/

/** `path` as a manifest has it: with slashes. */
export function isWindowsPath(path: string): boolean {
  return path
    .split("/")
    .every((name) => !devices.test(name) && !refusedCharacters.test(name) && !lostEnd.test(name))
}
