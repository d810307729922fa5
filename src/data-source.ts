/** From the options of a run to its stores and tokenizer: a corpus encoded once, an encoded folder, or a named store. */
import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { basename, dirname, extname, join, resolve } from 'node:path'
import type { TrainOptions } from './config'
import { KindlingError } from './errors'
import { fileOperation, writeWhole } from './run-folder'
import { TokenStore } from './token-store'
import { Tokenizer } from './tokenizer'

/** Share of a corpus that is kept for validation. */
const VALID_FRACTION = 0.05
/** Vocabulary where there is no tokenizer, and of one trained on a corpus. */
export const DEFAULT_VOCAB_SIZE = 32_000

/** What a run reads. */
export interface DataSource {
  train: TokenStore
  valid: TokenStore | null
  tokenizer: Tokenizer | null
}

/** Progress of reading a corpus. */
export type CorpusProgress = (what: string, done: number, total: number) => void

/** Opens what the options name; a corpus is encoded first unless that was done before. */
export async function openData(
  options: TrainOptions,
  given: ReadonlySet<string>,
  progress: CorpusProgress = () => {},
): Promise<DataSource> {
  const named = [options.corpus, options.data, options.corpus_size].filter((value) => value !== undefined)
  if (named.length === 0) {
    throw new KindlingError(
      'ERR_USAGE',
      'no training data: give --corpus FILE, --data DIR or --corpus-size NAME',
    )
  }
  if (options.corpus !== undefined && options.data !== undefined) {
    throw new KindlingError('ERR_USAGE', '--corpus and --data name two sources; give one')
  }
  const source =
    options.corpus === undefined
      ? await openFolder(options.data ?? join(options.data_dir, `${options.corpus_size}_chunks`), options)
      : await openCorpus(options.corpus, options, given, progress)
  const valid = options.valid === undefined ? source.valid : await TokenStore.open(storeIn(options.valid))
  return { ...source, valid }
}

/** A folder that `kindling encode` wrote, or one store. */
async function openFolder(path: string, options: TrainOptions): Promise<DataSource> {
  const inside = join(path, 'train_chunks')
  if (existsSync(inside)) {
    const valid = join(path, 'valid_chunks')
    const tokenizer = join(path, 'tokenizer')
    return {
      train: await TokenStore.open(inside),
      valid: existsSync(valid) ? await TokenStore.open(valid) : null,
      tokenizer: existsSync(tokenizer) ? await Tokenizer.open(tokenizer) : await tokenizerOfPaths(options),
    }
  }
  const train = await TokenStore.open(path)
  const { tokenizerPath } = train.metadata
  const beside = tokenizerPath === null ? null : resolve(path, tokenizerPath)
  const tokenizer = beside !== null && existsSync(beside) ? await Tokenizer.open(beside) : null
  return { train, valid: null, tokenizer: tokenizer ?? (await tokenizerOfPaths(options)) }
}

function storeIn(path: string): string {
  const inside = join(path, 'valid_chunks')
  return existsSync(inside) ? inside : path
}

async function tokenizerOfPaths(options: TrainOptions): Promise<Tokenizer | null> {
  const { vocab_path, merges_path, special_tokens } = options
  if (!existsSync(vocab_path) || !existsSync(merges_path)) return null
  return Tokenizer.fromFiles(vocab_path, merges_path, special_tokens)
}

/** What corpus.json says of an encoded corpus. */
interface CorpusRecord {
  format_version: 1
  file: string
  size: number
  modified_ms: number
  /** The tokenizer given, or what was asked of the one trained here. */
  tokenizer: string
}

async function openCorpus(
  file: string,
  options: TrainOptions,
  given: ReadonlySet<string>,
  progress: CorpusProgress,
): Promise<DataSource> {
  if (!existsSync(file)) {
    throw new KindlingError('ERR_NOT_FOUND', `corpus ${file} does not exist; check the path`)
  }
  const folder = join(options.data_dir, basename(file, extname(file)))
  const tokenizerGiven = given.has('vocab_path') || given.has('merges_path')
  const known = tokenizerGiven
    ? await Tokenizer.fromFiles(options.vocab_path, options.merges_path, options.special_tokens)
    : null
  const vocabSize = options.vocab_size ?? DEFAULT_VOCAB_SIZE
  const { size, mtimeMs } = await fileOperation(file, () => stat(file))
  const record: CorpusRecord = {
    format_version: 1,
    file: resolve(file),
    size,
    modified_ms: mtimeMs,
    tokenizer: known ? known.hash : JSON.stringify([vocabSize, options.special_tokens]),
  }
  const recordPath = join(folder, 'corpus.json')
  if (!(await isCurrent(recordPath, record))) {
    const tokenizer =
      known ??
      (await Tokenizer.train([file], {
        vocabSize,
        specialTokens: options.special_tokens,
        onProgress: (done, total) => progress('training the tokenizer', done, total),
      }))
    await TokenStore.encodeFiles([file], tokenizer, folder, {
      chunkSize: options.chunk_size,
      validFraction: VALID_FRACTION,
      onProgress: (done, total) => progress('encoding the corpus', done, total),
    })
    await writeWhole(recordPath, `${JSON.stringify(record, null, 2)}\n`)
  }
  return openFolder(folder, options)
}

async function isCurrent(path: string, record: CorpusRecord): Promise<boolean> {
  if (!existsSync(path) || !existsSync(join(dirname(path), 'train_chunks'))) return false
  try {
    return (await readFile(path, 'utf8')).trim() === JSON.stringify(record, null, 2)
  } catch {
    return false
  }
}
