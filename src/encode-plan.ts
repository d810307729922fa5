/** What encoding would read and write. */
import { open, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { STDIN, endsDocuments, formatOfName, type CorpusFormat } from './corpus-files'
import { READ_ANY_KIND, fileOperation } from './files'
import { existingStores } from './store-paths'
import type { Tokenizer } from './tokenizer'

/** Input of `planEncoding`. */
export interface PlannedEncoding {
  /** The files found. */
  files: readonly string[]
  format?: CorpusFormat | undefined
  tokenizer: Tokenizer
  out: string
  validFraction: number
}

/** What encoding would read and write. */
export interface EncodePlan {
  files: number
  /** Bytes of the files on disk (compressed, if they are). Null for standard input. */
  bytes: number | null
  /**
   * Approximate number of tokens, estimated from the start of the first file; null unless all files
   * are plain text.
   */
  tokensEstimated: number | null
  /** `<|endoftext|>` is added after each document, unless the options say otherwise. */
  appendEot: boolean
  writes: string[]
  /** Stores that exist and would be replaced. */
  replaces: string[]
}

/** Number of bytes at the start of a file from which the number of tokens is estimated. */
const SAMPLE_BYTES = 1 << 20

/**
 * Plans an encoding; reads the sizes of the files and the start of the first.
 *
 * @throws KindlingError `ERR_NOT_FOUND`, `ERR_IO`.
 */
export async function planEncoding(encoding: PlannedEncoding): Promise<EncodePlan> {
  const { files, format, tokenizer, out, validFraction } = encoding
  const bytes = files.includes(STDIN) ? null : await totalBytes(files)
  const isPlain = files.every((file) => isPlainText(file, format))
  const perByte = bytes !== null && isPlain ? await tokensPerByte(files[0]!, tokenizer) : null
  const isStore = basename(resolve(out)).endsWith('_chunks')
  return {
    files: files.length,
    bytes,
    tokensEstimated: perByte === null ? null : Math.round(perByte * bytes!),
    appendEot: endsDocuments(files, format),
    writes: isStore
      ? [out, join(dirname(out), 'tokenizer')]
      : ['tokenizer', 'train_chunks', ...(validFraction > 0 ? ['valid_chunks'] : [])].map((name) =>
          join(out, name),
        ),
    replaces: existingStores(out),
  }
}

async function totalBytes(files: readonly string[]): Promise<number> {
  const sizes = files.map((file) => fileOperation('read', file, () => stat(file)))
  return (await Promise.all(sizes)).reduce((sum, { size }) => sum + size, 0)
}

function isPlainText(file: string, format?: CorpusFormat): boolean {
  return !/\.(gz|zst)$/i.test(file) && (format ?? formatOfName(file)) === 'text'
}

async function tokensPerByte(file: string, tokenizer: Tokenizer): Promise<number | null> {
  const sample = await fileOperation('read', file, async () => {
    const opened = await open(file, READ_ANY_KIND)
    try {
      if (!(await opened.stat()).isFile()) return Buffer.alloc(0)
      const { buffer, bytesRead } = await opened.read(Buffer.alloc(SAMPLE_BYTES), 0, SAMPLE_BYTES)
      return buffer.subarray(0, bytesRead)
    } finally {
      await opened.close()
    }
  })
  if (sample.length === 0) return null
  return tokenizer.encode(sample.toString('utf8')).length / sample.length
}
