/**
 * Opens the stores and the tokenizer of a run. The data is a corpus, which is encoded on first use,
 * a mixture of stores, an encoded folder, or a store in the data folder.
 */
import { existsSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { KindlingError } from '../errors'
import { fileOperation } from '../files'
import { evaluationStore } from '../store-paths'
import { TokenStore } from '../token-store'
import { Tokenizer } from '../tokenizer'
import type { MixturePart } from './batch-loader'
import type { ResolvedOptions, TrainOptions } from './config'
import {
  encodeCorpus,
  type CorpusEncoding,
  type CorpusProgress,
  type Scratch,
} from './corpus-store'

/**
 * Default vocabulary size, for a model without a tokenizer and for a tokenizer trained on a corpus.
 */
export const DEFAULT_VOCAB_SIZE = 32_000

/** The stores and the tokenizer of a run. */
export interface DataSource {
  /** Training stores with their weights in the mixture. */
  train: MixturePart[]
  valid: TokenStore | null
  tokenizer: Tokenizer | null
}

/** Returns the number of training tokens, summed over the stores. */
export function trainingTokens(data: DataSource): number {
  return data.train.reduce((sum, { store }) => sum + store.length, 0)
}

/** What opening the data needs besides the options. */
export interface Preparation {
  /** Receives sentences for people. */
  message: (text: string) => void
  progress: CorpusProgress
  /** Where to encode a corpus that is not encoded yet, instead of in the data folder. */
  scratch?: Scratch | undefined
  /** The tokenizer of the model to start from, if it has one. */
  tokenizer?: Tokenizer | null | undefined
  signal?: AbortSignal | undefined
}

/**
 * Opens the data that the options name; a corpus is encoded first unless an earlier run did so.
 *
 * @throws KindlingError `ERR_USAGE` unless exactly one source is given; see docs/errors.md.
 */
export async function openData(
  resolved: ResolvedOptions,
  preparation: Preparation,
): Promise<DataSource> {
  const { options } = resolved
  const source = withTokenizer(await openSource(resolved, preparation), preparation.tokenizer)
  if (options.valid !== undefined) {
    source.valid = await TokenStore.open(evaluationStore(options.valid))
  }
  checkTokenizers(source)
  return source
}

/**
 * Checks that all stores were encoded with one tokenizer: that of the run, if it has one. Stores
 * that do not record their tokenizer are accepted.
 *
 * @throws KindlingError `ERR_INVALID_TOKENIZER`.
 */
function checkTokenizers({ train, valid, tokenizer }: DataSource): void {
  const stores = train.map(({ store }) => store)
  let known = tokenizer?.hash ?? null
  for (const { path, metadata } of valid ? [...stores, valid] : stores) {
    known ??= metadata.tokenizerHash
    if (metadata.tokenizerHash === null || metadata.tokenizerHash === known) continue
    throw new KindlingError(
      'ERR_INVALID_TOKENIZER',
      `${path} was not encoded with the same tokenizer as ${tokenizer?.path ?? stores[0]!.path}; ` +
        'encode all data with the same tokenizer',
    )
  }
}

/**
 * Returns the data with the tokenizer of the model to start from, if that has one.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` if the data were encoded with another one.
 */
function withTokenizer(source: DataSource, tokenizer: Tokenizer | null = null): DataSource {
  if (!tokenizer || source.tokenizer?.hash === tokenizer.hash) return source
  if (!source.tokenizer) return { ...source, tokenizer }
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    'the data was not encoded with the tokenizer of the model to start from (--from); ' +
      "encode it with the model's tokenizer",
  )
}

async function openSource(
  resolved: ResolvedOptions,
  preparation: Preparation,
): Promise<DataSource> {
  const { options } = resolved
  const { corpus, data, mixture, corpusSize, dataDir } = options
  const names = Object.entries({ corpus, data, mixture })
    .filter(([, value]) => value !== undefined)
    .map(([name]) => `--${name}`)
  if (names.length > 1) {
    throw new KindlingError('ERR_USAGE', `${names.join(' and ')} exclude each other; give only one`)
  }
  if (corpus !== undefined) {
    const encoding = await corpusEncoding(corpus, resolved, preparation)
    return openFolder(await encodeCorpus(encoding, preparation), options)
  }
  if (mixture !== undefined) return openMixture(mixture, options)
  if (data !== undefined) return openFolder(data, options)
  if (corpusSize !== undefined) return openFolder(join(dataDir, `${corpusSize}_chunks`), options)
  throw new KindlingError(
    'ERR_USAGE',
    'no training data: give text files (--corpus FILE...), --data PATH, --mixture DIR=WEIGHT or ' +
      '--corpus-size NAME',
  )
}

/**
 * Opens a mixture: folders with weights, such as `data/web=0.8`. Validation data comes from the
 * first folder that has any.
 */
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
        `${path} has a different tokenizer from the stores before it; encode all with the same tokenizer`,
      )
    }
    valid ??= source.valid
    tokenizer ??= source.tokenizer
  }
  return { train, valid, tokenizer }
}

/** Opens an output folder of `kindling encode`, or a single store. */
async function openFolder(path: string, options: TrainOptions): Promise<DataSource> {
  const inside = join(path, 'train_chunks')
  if (existsSync(inside)) {
    const valid = join(path, 'valid_chunks')
    const tokenizer = join(path, 'tokenizer')
    const train = await TokenStore.open(inside)
    return {
      train: [{ store: train, weight: 1 }],
      valid: existsSync(valid) ? await TokenStore.open(valid) : null,
      tokenizer: existsSync(tokenizer)
        ? await tokenizerOf(train, tokenizer)
        : await tokenizerFromOptions(options),
    }
  }
  const train = await TokenStore.open(path)
  const { tokenizerPath } = train.metadata
  const named = tokenizerPath === null ? null : resolve(path, tokenizerPath)
  const tokenizer =
    named !== null && existsSync(named)
      ? await tokenizerOf(train, await withoutLinks(path, named))
      : null
  return {
    train: [{ store: train, weight: 1 }],
    valid: null,
    tokenizer: tokenizer ?? (await tokenizerFromOptions(options)),
  }
}

/**
 * Returns the tokenizer path that a store's metadata names, provided that no symbolic link leads
 * from there to another place. Links in the path to the store itself are the user's own and
 * allowed.
 *
 * @throws KindlingError `ERR_INVALID_TOKENIZER`.
 */
async function withoutLinks(store: string, named: string): Promise<string> {
  const parent = dirname(resolve(store))
  const below = relative(parent, named)
  const isBelow = !isAbsolute(below) && !below.startsWith('..')
  const expected = isBelow ? join(await realpath(parent), below) : named
  const found = await fileOperation('read', named, () => realpath(named))
  if (found === expected) return named
  throw new KindlingError(
    'ERR_INVALID_TOKENIZER',
    `${store} names the tokenizer ${named}, which links to ${found}; ` +
      'put the tokenizer itself there, or give --vocab-path and --merges-path',
  )
}

/**
 * Opens the tokenizer that a store names.
 *
 * @throws KindlingError `ERR_INVALID_TOKENIZER` if it is not the one that encoded the store.
 */
async function tokenizerOf(store: TokenStore, path: string): Promise<Tokenizer> {
  const tokenizer = await Tokenizer.open(path)
  const { tokenizerHash } = store.metadata
  if (tokenizerHash === null || tokenizerHash === tokenizer.hash) return tokenizer
  throw new KindlingError(
    'ERR_INVALID_TOKENIZER',
    `${path} is not the tokenizer that encoded ${store.path}; restore it, or encode the text again`,
  )
}

async function tokenizerFromOptions(options: TrainOptions): Promise<Tokenizer | null> {
  const { vocabPath, mergesPath, specialTokens } = options
  if (!existsSync(vocabPath) || !existsSync(mergesPath)) return null
  return Tokenizer.fromFiles(vocabPath, mergesPath, specialTokens)
}

/** Returns how to encode a corpus, according to the options. */
async function corpusEncoding(
  names: readonly string[],
  resolved: ResolvedOptions,
  { tokenizer: ofModel }: Preparation,
): Promise<CorpusEncoding> {
  const { dataDir, chunkSize, specialTokens, textField, appendEot } = resolved.options
  return {
    ...{ names, dataDir, chunkSize, textField, appendEot },
    tokenizer: ofModel ??
      (await givenTokenizer(resolved)) ?? { vocabSize: trainedVocabSize(resolved), specialTokens },
  }
}

async function givenTokenizer({ options, given }: ResolvedOptions): Promise<Tokenizer | null> {
  if (!given.has('vocabPath') && !given.has('mergesPath')) return null
  return Tokenizer.fromFiles(options.vocabPath, options.mergesPath, options.specialTokens)
}

/**
 * Returns the vocabulary size for a tokenizer to be trained on a corpus: the size that the user
 * gave, else the preset's or the default, raised if necessary to the minimum of byte-level BPE.
 */
function trainedVocabSize({ options, given }: ResolvedOptions): number {
  const { vocabSize = DEFAULT_VOCAB_SIZE, specialTokens } = options
  if (given.has('vocabSize')) return vocabSize
  return Math.max(vocabSize, 256 + new Set(specialTokens).size)
}
