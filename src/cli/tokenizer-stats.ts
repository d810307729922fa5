/**
 * Measures tokenizers on documents drawn at random from files: compression, speed, and the time
 * that 825 GiB of text (the Pile) would take.
 */
import { longCall, type LongCallOptions } from '../long-call'
import { native } from '../native'
import type { Tokenizer } from '../tokenizer'

/** Measurements of one tokenizer on one file. */
export interface TokenizerStats {
  /** Mean over the documents of bytes / tokens. */
  bytesPerToken: number
  /** Bytes of all documents over the time of all documents. */
  mbPerSecond: number
  tokensPerSecond: number
  /** Hours for the Pile, 825 GiB, at that speed. */
  hoursForPile: number
}

const PILE_BYTES = 825 * 1024 ** 3

/** Options of `sampleDocuments`. */
export interface SampleOptions extends LongCallOptions {
  /** Largest number of documents. */
  sample: number
  /** The same seed draws the same documents. Default 0. */
  seed?: number
  /**
   * Format of the file. Default: JSON Lines if the name ends in .jsonl or .ndjson (before .gz or
   * .zst), Parquet if it ends in .parquet, else text.
   */
  format?: 'text' | 'jsonl' | 'parquet'
  /** Field of a JSON Lines object that holds the text. Default `text`. */
  textField?: string
}

/**
 * Draws documents at random from a file (plain, gzip or zstd) in one pass; each is equally likely.
 *
 * A document is one line of JSON Lines; in plain text, documents are separated by `<|endoftext|>`.
 * Only the drawn documents are held in memory. Documents over 64 MiB are cut to their beginning.
 *
 * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS`, `ERR_CANCELLED`.
 */
export async function sampleDocuments(file: string, options: SampleOptions): Promise<string[]> {
  const { sample, seed = 0, format, textField = 'text' } = options
  const settings = { sample, seed, textField, ...(format && { format }) }
  return longCall(options, async (monitor) => native.sampleDocuments(file, settings, monitor))
}

/** Encodes the documents one by one and measures. */
export function measureTokenizer(
  tokenizer: Tokenizer,
  documents: readonly string[],
): TokenizerStats {
  let bytes = 0
  let tokens = 0
  let seconds = 0
  let ratios = 0
  for (const document of documents) {
    const size = Buffer.byteLength(document)
    const started = performance.now()
    const { length } = tokenizer.encode(document)
    seconds += (performance.now() - started) / 1000
    bytes += size
    tokens += length
    ratios += size / length
  }
  return {
    bytesPerToken: ratios / documents.length,
    mbPerSecond: bytes / 1e6 / seconds,
    tokensPerSecond: Math.round(tokens / seconds),
    hoursForPile: PILE_BYTES / (bytes / seconds) / 3600,
  }
}
