/** Hashes that name folders by their contents. */
import { createHash } from 'node:crypto'

/** Returns the first eight hexadecimal digits of the SHA-256 of `text`. */
export function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 8)
}
