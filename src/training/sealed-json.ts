/**
 * JSON files that contain a checksum of themselves, so that a flipped bit does not pass for a
 * setting. Callers accept a file without one, from an earlier version or edited on purpose.
 */
import { createHash } from 'node:crypto'

/** Placeholder for the checksum while it is computed. */
const NO_CHECKSUM = `sha256:${'0'.repeat(64)}`

/** Returns the text of a file with these fields and its checksum. */
export function sealedJson(fields: object): string {
  const text = `${JSON.stringify({ ...fields, checksum: NO_CHECKSUM }, null, 2)}\n`
  return replaceLast(text, NO_CHECKSUM, checksumOf(text))
}

/** Returns whether `text` is as `sealedJson` returned it, with `checksum` as its checksum. */
export function isSealed(text: string, checksum: string): boolean {
  return checksumOf(replaceLast(text, checksum, NO_CHECKSUM)) === checksum
}

function checksumOf(text: string): string {
  return `sha256:${createHash('sha256').update(text).digest('hex')}`
}

function replaceLast(text: string, from: string, to: string): string {
  const at = text.lastIndexOf(from)
  return at < 0 ? text : text.slice(0, at) + to + text.slice(at + from.length)
}
