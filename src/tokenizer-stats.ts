/**
 * The course's tokenizer experiments: documents drawn at random from each file, how well each tokenizer compresses them,
 * how fast it is, and how long 825 GiB would take.
 */
import { createReadStream } from 'node:fs'
import { KindlingError } from './errors'
import { END_OF_TEXT } from './generate'
import { fileOperation } from './run-folder'
import type { Tokenizer } from './tokenizer'

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

/**
 * Up to `sample` documents of a file, split at `<|endoftext|>` and drawn at random: every document has the same chance,
 * and memory holds the drawn ones alone.
 *
 * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`.
 */
export async function sampleDocuments(file: string, sample: number, seed: number): Promise<string[]> {
  const drawn: { place: number; document: string }[] = []
  let seen = 0
  for await (const document of documents(file)) {
    seen++
    if (drawn.length < sample) {
      drawn.push({ place: seen, document })
      continue
    }
    // Reservoir sampling: document n replaces one of the drawn with chance sample / n.
    const place = Math.floor(uniform(seed, seen) * seen)
    if (place < sample) drawn[place] = { place: seen, document }
  }
  if (drawn.length === 0) {
    throw new KindlingError('ERR_EMPTY_CORPUS', `${file} holds no text; give a file with content`)
  }
  return drawn.sort((a, b) => a.place - b.place).map(({ document }) => document)
}

/** From 0 to below 1, a function of two numbers: MurmurHash3's last step, which mixes neighbouring ones well. */
function uniform(seed: number, index: number): number {
  let h = (Math.imul(seed, 0x9e3779b9) ^ Math.imul(index, 0x85ebca6b)) >>> 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32
}

async function* documents(file: string): AsyncGenerator<string, void, void> {
  let held = ''
  const stream = createReadStream(file, { encoding: 'utf8', highWaterMark: 1 << 20 })
  const pieces = stream[Symbol.asyncIterator]()
  for (;;) {
    const next = (await fileOperation(file, () => pieces.next())) as IteratorResult<string, undefined>
    if (next.done) break
    const parts = (held + next.value).split(END_OF_TEXT)
    held = parts.pop()!
    for (const part of parts) if (part.trim() !== '') yield part
  }
  if (held.trim() !== '') yield held
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
