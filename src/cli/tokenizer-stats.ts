/**
 * The course's tokenizer experiments: documents drawn at random from each file, how well each tokenizer compresses them,
 * how fast it is, and how long 825 GiB would take.
 */
import { settle } from '../errors'
import { longCall, type LongCallOptions } from '../long-call'
import { native } from '../native'
import type { Tokenizer } from '../tokenizer'

/** One tokenizer on one file. */
export interface TokenizerStats {
  /** Mean of the documents' bytes / tokens. */
  bytes_per_token: number
  /** All bytes over all seconds. */
  mb_per_second: number
  tokens_per_second: number
  /** Hours for 825 x 1024^3 bytes at that speed. */
  hours_for_825_gib: number
}

const BYTES_OF_THE_PILE = 825 * 1024 ** 3

/** Which documents are drawn. */
export interface SampleOptions extends LongCallOptions {
  /** How many at most. */
  sample: number
  /** The same seed draws the same documents. Default 0. */
  seed?: number
  /** What the file holds. Default: JSON Lines where the name ends in .jsonl or .ndjson (before .gz or .zst), else text. */
  format?: 'text' | 'jsonl'
  /** The field of JSON Lines that is the text. Default `text`. */
  textField?: string
}

/** The names of the files that names, and patterns as `data/*.txt`, stand for; `-` is standard input. */
export async function expandFiles(names: readonly string[]): Promise<string[]> {
  return settle(async () => native.expandFiles([...names]))
}

/**
 * Documents of a file, plain, gzip or zstd, drawn at random in one pass: the texts of JSON Lines, or what stands between
 * `<|endoftext|>`. Every document has the same chance, and memory holds the drawn ones alone, of documents beyond 64 MiB the
 * beginning.
 *
 * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS`, `ERR_CANCELLED`.
 */
export async function sampleDocuments(file: string, options: SampleOptions): Promise<string[]> {
  const { sample, seed = 0, format, textField = 'text' } = options
  const settings = { sample, seed, textField, ...(format && { format }) }
  return longCall(options, async (monitor) => native.sampleDocuments(file, settings, monitor))
}

/** Encodes the documents and measures. */
export function measureTokenizer(tokenizer: Tokenizer, sampled: readonly string[]): TokenizerStats {
  let bytes = 0
  let tokens = 0
  let seconds = 0
  let ratios = 0
  for (const document of sampled) {
    const size = Buffer.byteLength(document)
    const started = performance.now()
    const { length } = tokenizer.encode(document)
    seconds += (performance.now() - started) / 1000
    bytes += size
    tokens += length
    ratios += size / length
  }
  return {
    bytes_per_token: ratios / sampled.length,
    mb_per_second: bytes / 1e6 / seconds,
    tokens_per_second: Math.round(tokens / seconds),
    hours_for_825_gib: BYTES_OF_THE_PILE / (bytes / seconds) / 3600,
  }
}
