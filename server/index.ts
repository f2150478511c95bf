// The face of the relay, `knothole/server`.
export type { Clock } from "./clock.js"
export {
  ConfigError,
  type ConfigSetting,
  configSettings,
  type ConfigSources,
  type ListenAddress,
  loadConfig,
  operatorSocketOf,
  showConfig,
  type RelayConfig,
} from "./config.js"
export type { Disk, DiskFile, DiskSpace, FileFacts } from "./disk.js"
export type { Randomness } from "./randomness.js"
export { createRelay, type Relay, type RelayPorts } from "./relay.js"
export { declareRestored } from "./stores/restoration.js"
export { DataFolderError } from "./stores/folder-lock.js"
