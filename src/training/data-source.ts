/** From the options of a run to its stores and tokenizer: a corpus encoded once, an encoded folder, or a named store. */
import { existsSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { basename, dirname, extname, join, resolve } from 'node:path'
import type { MixturePart } from './batch-loader'
import type { TrainOptions } from './config'
import { KindlingError } from '../errors'
import { fileOperation, writeWhole } from './run-folder'
import { TokenStore } from '../token-store'
import { Tokenizer } from '../tokenizer'

/** Share of a corpus that is kept for validation. */
const VALID_FRACTION = 0.05
/** Vocabulary where there is no tokenizer, and of one trained on a corpus. */
export const DEFAULT_VOCAB_SIZE = 32_000

/** What a run reads. */
export interface DataSource {
  /** Training tokens: one store, or several with their shares of the windows. */
  train: MixturePart[]
  valid: TokenStore | null
  tokenizer: Tokenizer | null
}

/** Training tokens in all. */
export function trainingTokens(data: DataSource): number {
  return data.train.reduce((sum, { store }) => sum + store.length, 0)
}

/** Progress of reading a corpus. */
export type CorpusProgress = (what: string, done: number, total: number) => void

/** Opens what the options name; a corpus is encoded first unless that was done before. */
export async function openData(
  options: TrainOptions,
  given: ReadonlySet<string>,
  progress: CorpusProgress = () => {},
): Promise<DataSource> {
  const { corpus, data, mixture, corpus_size } = options
  if ([corpus, data, mixture, corpus_size].every((value) => value === undefined)) {
    throw new KindlingError(
      'ERR_USAGE',
      'no training data: give --corpus FILE, --data DIR, --mixture DIR=WEIGHT... or --corpus-size NAME',
    )
  }
  const sources = Object.entries({ corpus, data, mixture }).filter(
    ([, value]) => value !== undefined,
  )
  if (sources.length > 1) {
    const names = sources.map(([name]) => `--${name}`).join(' and ')
    throw new KindlingError('ERR_USAGE', `${names} name ${sources.length} sources; give one`)
  }
  const source =
    corpus !== undefined
      ? await openCorpus(corpus, options, given, progress)
      : mixture !== undefined
        ? await openMixture(mixture, options)
        : await openFolder(data ?? join(options.data_dir, `${corpus_size}_chunks`), options)
  const valid =
    options.valid === undefined ? source.valid : await TokenStore.open(storeIn(options.valid))
  return { ...source, valid }
}

/** Several folders, as `data/web=0.8`. The validation data is that of the first folder that has any. */
async function openMixture(mixture: readonly string[], options: TrainOptions): Promise<DataSource> {
  const train: MixturePart[] = []
  let valid: TokenStore | null = null
  let tokenizer: Tokenizer | null = null
  for (const entry of mixture) {
    const at = entry.lastIndexOf('=')
    const path = entry.slice(0, at)
    const source = await openFolder(path, options)
    train.push(...source.train.map(({ store }) => ({ store, weight: Number(entry.slice(at + 1)) })))
    if (tokenizer && source.tokenizer && tokenizer.hash !== source.tokenizer.hash) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        `${path} was encoded with another tokenizer than the stores before it; encode them with one`,
      )
    }
    valid ??= source.valid
    tokenizer ??= source.tokenizer
  }
  return { train, valid, tokenizer }
}

/** A folder that `kindling encode` wrote, or one store. */
async function openFolder(path: string, options: TrainOptions): Promise<DataSource> {
  const inside = join(path, 'train_chunks')
  if (existsSync(inside)) {
    const valid = join(path, 'valid_chunks')
    const tokenizer = join(path, 'tokenizer')
    return {
      train: [{ store: await TokenStore.open(inside), weight: 1 }],
      valid: existsSync(valid) ? await TokenStore.open(valid) : null,
      tokenizer: existsSync(tokenizer)
        ? await Tokenizer.open(tokenizer)
        : await tokenizerOfPaths(options),
    }
  }
  const train = await TokenStore.open(path)
  const { tokenizerPath } = train.metadata
  const beside = tokenizerPath === null ? null : resolve(path, tokenizerPath)
  const tokenizer = beside !== null && existsSync(beside) ? await Tokenizer.open(beside) : null
  return {
    train: [{ store: train, weight: 1 }],
    valid: null,
    tokenizer: tokenizer ?? (await tokenizerOfPaths(options)),
  }
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
