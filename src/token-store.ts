/**
 * Token ids on disk, mapped into memory as they are used: a folder of chunk files as numpy.memmap writes them, one .npy
 * (int32, int64, uint16), or one raw .bin of uint16. Batches are drawn in native memory and never cross into JavaScript.
 */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { Batch } from './batch'
import { KindlingError, call, settle } from './errors'
import { longCall, type LongCallOptions } from './long-call'
import { native } from './native'
import { Tokenizer } from './tokenizer'

/** How text becomes a store. */
export interface EncodeOptions extends LongCallOptions {
  /** Tokens a chunk file. Default 500000. */
  chunkSize?: number
  /** Share of the tokens, from the end, that goes to `valid_chunks`; from 0 to below 1. Default 0. */
  validFraction?: number
  /** Integers the chunk files hold: `int32`, or `uint16` for vocabularies of at most 65536. Default `int32`. */
  tokenDtype?: 'int32' | 'uint16'
  /** Threads that encode. Default: the cores this process may use. The store does not depend on it. */
  threads?: number
  /** What the files hold. Default: JSON Lines where the name ends in .jsonl or .ndjson (before .gz or .zst), else text. */
  format?: 'text' | 'jsonl'
  /** The field of JSON Lines that is the text. Default `text`. */
  textField?: string
  /**
   * What a document is: a file, a line, or a block of lines between blank ones; the line breaks between documents belong to
   * none. Default: `line` for JSON Lines, `file` for text. No token crosses from one document into the next.
   */
  document?: 'file' | 'line' | 'block'
  /** Put `<|endoftext|>` after every document that is not empty. Default false. */
  appendEot?: boolean
  /** Go on with what a killed call with the same files and options left. Default true. */
  resume?: boolean
  /** An aborted call leaves what is done for the next one, as a killed one does, in place of nothing. Default false. */
  keepWhenAborted?: boolean
}

/** What encoding gave. */
export interface EncodeSummary {
  /** Tokens in all. */
  tokens: number
  /** Bytes of the text they stand for, each appended `<|endoftext|>` included. */
  bytes: number
  /** Bytes of the files that were no UTF-8 and became U+FFFD. */
  replacedBytes: number
  /** Bytes of text that an earlier, killed call had encoded. */
  resumedBytes: number
  /** Folder of the store with the training tokens. */
  train: string
  /** Folder of the store with the validation tokens, if there is one. */
  valid: string | null
}

/** What stores made of stores are like. */
export interface ReshapeOptions extends LongCallOptions {
  /** Tokens a chunk file. Default: those of the first store. */
  chunkSize?: number
  /** Default: `uint16` if all stores have it, else `int32`. */
  tokenDtype?: 'int32' | 'uint16'
  /** The stores' tokenizer, which a folder of stores gets a copy of. Default: the one that the first store names, if it is there. */
  tokenizer?: Tokenizer
}

/** What is known of a store: what `store.json` says, or what the sizes of the files tell. */
export interface StoreMetadata {
  /** Tokens. */
  length: number
  /** Bytes of the text they stand for, where known. */
  bytes: number | null
  /** Tokens a chunk file. */
  chunkSize: number
  /** numpy's name of the elements: `int32`, `int64` or `uint16`. */
  dtype: string
  /** Where the tokenizer is, as seen from the store's folder. */
  tokenizerPath: string | null
  /** Hash of the tokenizer's contents: `Tokenizer.hash` of the one it was encoded with. */
  tokenizerHash: string | null
  /** The largest token id, where known. */
  maxId: number | null
  /** Bytes of the input that were no UTF-8 and became U+FFFD. */
  replacedBytes: number
}

/**
 * How the windows of batches are chosen. `random`: at random places, spread evenly. `epoch`: every consecutive window once,
 * in an order of the seed, then again in another. `sequential`: every consecutive window in order, then again. `dense`: as
 * `epoch`, with a window at every place.
 */
export type Sampling = 'random' | 'epoch' | 'sequential' | 'dense'

/** Which batch to draw: a pure function of these numbers, so that a run continues from its step alone. */
export interface BatchOptions {
  /** Windows. */
  batchSize: number
  /** Tokens a window. */
  seqLength: number
  /** Seed of the run, an integer from 0. Default 0. */
  seed?: number
  /** The step, from 1. */
  step: number
  /** Which of the step's accumulated batches, from 0. Default 0. */
  microBatch?: number
  /** How many batches a step accumulates. Default 1. */
  accumulate?: number
  /** How windows are chosen. Default `random`. */
  sampling?: Sampling
}

/** Which consecutive windows to evaluate. */
export interface EvaluationBatchOptions {
  /** Tokens a window. */
  seqLength: number
  /** The first window, from 0. */
  firstWindow: number
  /** How many windows. */
  count: number
}

const CHUNK_SIZE = 500_000

/** A store of token ids. Opening reads no tokens; the files must not be cut shorter while it is in use. */
export class TokenStore {
  readonly #native: native.TokenStore

  /** Where it was opened. */
  readonly path: string

  private constructor(handle: native.TokenStore, path: string) {
    this.#native = handle
    this.path = path
  }

  /**
   * Opens a store.
   *
   * @param path - a folder of chunk files, a .npy or a .bin file.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_STORE` (a chunk is missing, sizes disagree, another dtype).
   */
  static async open(path: string): Promise<TokenStore> {
    return new TokenStore(await settle(() => native.TokenStore.open(path)), path)
  }

  /**
   * Encodes text files, read as UTF-8 one after the other, and opens the store of their tokens (with `validFraction`
   * the one of the training tokens). See `encodeFiles`.
   */
  static async encode(
    files: readonly string[],
    tokenizer: Tokenizer,
    out: string,
    options: EncodeOptions = {},
  ): Promise<TokenStore> {
    return TokenStore.open((await TokenStore.encodeFiles(files, tokenizer, out, options)).train)
  }

  /**
   * Encodes text files in one streaming pass; memory does not depend on their size. Reading, encoding and writing overlap.
   *
   * @param files - text or JSON Lines, plain, gzip or zstd (told by their contents); patterns as `data/*.txt` stand for the
   * files they match, `-` for standard input.
   * @param out - a folder that gets `tokenizer`, `train_chunks` and, with a `validFraction`, `valid_chunks`; a name that
   * ends in `_chunks` is the store itself. A store that is there already is replaced when the new one is whole. A process
   * that is killed leaves a hidden folder beside it, from which the same call goes on.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS`, `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`,
   * `ERR_CANCELLED`, `ERR_INVALID_ARGUMENT`; nothing is left behind.
   */
  static async encodeFiles(
    files: readonly string[],
    tokenizer: Tokenizer,
    out: string,
    options: EncodeOptions = {},
  ): Promise<EncodeSummary> {
    if (!Array.isArray(files) || typeof out !== 'string') {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        'encode takes a list of files, a tokenizer and a folder',
      )
    }
    const handle = Tokenizer.toNative(tokenizer)
    const settings = {
      chunkSize: options.chunkSize ?? CHUNK_SIZE,
      validFraction: options.validFraction ?? 0,
      tokenDtype: options.tokenDtype ?? 'int32',
      threads: options.threads ?? native.availableThreads(),
      textField: options.textField ?? 'text',
      appendEot: options.appendEot ?? false,
      resume: options.resume ?? true,
      keepWhenCancelled: options.keepWhenAborted ?? false,
      ...(tokenizer.path && { tokenizerPath: tokenizer.path }),
      ...(options.format && { format: options.format }),
      ...(options.document && { document: options.document }),
    }
    const { valid, ...summary } = await longCall(options, async (monitor) =>
      native.encodeFiles([...files], handle, out, settings, monitor),
    )
    return { ...summary, valid: valid ?? null }
  }

  /**
   * Writes the tokens of stores, one after the other, to one.
   *
   * @param out - a folder that gets `train_chunks` and the tokenizer; a name that ends in `_chunks` is the store itself.
   * @throws KindlingError `ERR_INVALID_ARGUMENT` (stores of several tokenizers), `ERR_TOKEN_OUT_OF_RANGE` (an id that uint16
   * cannot hold), `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, `ERR_CANCELLED`; nothing is left behind.
   */
  static async merge(
    stores: readonly TokenStore[],
    out: string,
    options: ReshapeOptions = {},
  ): Promise<TokenStore> {
    const handles = stores.map((store) => TokenStore.toNative(store))
    const settings = await reshapeSettings(stores[0], options)
    const { train } = await longCall(options, async (monitor) =>
      native.mergeStores(handles, out, settings, monitor),
    )
    return TokenStore.open(train)
  }

  /**
   * Cuts a store in two: tokens before `at` go to `train_chunks` of the folder `out`, the others to its `valid_chunks`.
   *
   * @throws KindlingError as `merge`; `ERR_INVALID_ARGUMENT` for a place that leaves nothing on a side.
   */
  static async split(
    store: TokenStore,
    at: number,
    out: string,
    options: ReshapeOptions = {},
  ): Promise<{ train: TokenStore; valid: TokenStore }> {
    const handle = TokenStore.toNative(store)
    const settings = await reshapeSettings(store, options)
    const { train, valid } = await longCall(options, async (monitor) =>
      native.splitStore(handle, at, out, settings, monitor),
    )
    return { train: await TokenStore.open(train), valid: await TokenStore.open(valid!) }
  }

  /** The tokenizer that `store.json` names, if it is there and the one that the store was encoded with. */
  async tokenizer(): Promise<Tokenizer | null> {
    const { tokenizerPath, tokenizerHash } = this.metadata
    if (tokenizerPath === null) return null
    const path = resolve(this.path, tokenizerPath)
    const tokenizer = existsSync(path) ? await Tokenizer.open(path) : null
    return tokenizer === null || tokenizer.hash === tokenizerHash ? tokenizer : null
  }

  /** Tokens in the store. */
  get length(): number {
    return this.#native.length
  }

  /** What is known of the store. */
  get metadata(): StoreMetadata {
    const { bytes, tokenizerPath, tokenizerHash, maxId, ...sizes } = this.#native.metadata
    return {
      ...sizes,
      bytes: bytes ?? null,
      tokenizerPath: tokenizerPath ?? null,
      tokenizerHash: tokenizerHash ?? null,
      maxId: maxId ?? null,
    }
  }

  /**
   * A copy of tokens `start` to `end`, the last not included; ranges may cross chunks.
   *
   * @throws KindlingError `ERR_RANGE_OUT_OF_BOUNDS`.
   */
  loadByRange(start: number, end: number): Int32Array {
    return call(() => this.#native.loadByRange(start, end))
  }

  /**
   * A batch of windows (random ones start anywhere from 0 to length - seqLength - 1); y is x shifted by one.
   *
   * @returns a native handle; its `x` and `y` are copies, batchSize x seqLength.
   * @throws KindlingError `ERR_STORE_TOO_SHORT`, `ERR_INVALID_ARGUMENT`.
   */
  batch(options: BatchOptions): Batch {
    const defaults = {
      seed: 0,
      microBatch: 0,
      accumulate: (options.microBatch ?? 0) + 1,
      sampling: 'random',
    }
    return new Batch(call(() => this.#native.batch({ ...defaults, ...options })))
  }

  /** @internal */
  static toNative(store: TokenStore): native.TokenStore {
    if (store instanceof TokenStore) return store.#native
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'a store is what TokenStore.open returns')
  }

  /**
   * How many consecutive windows of `seqLength` tokens there are, each with the token that follows it; the rest is dropped.
   *
   * @throws KindlingError `ERR_STORE_TOO_SHORT` if there is none.
   */
  numWindows(seqLength: number): number {
    return call(() => this.#native.numWindows(seqLength))
  }

  /**
   * Consecutive windows for evaluation: window i begins at token i x seqLength.
   *
   * @throws KindlingError `ERR_STORE_TOO_SHORT`, `ERR_INVALID_ARGUMENT` (windows that are not there).
   */
  evaluationBatch({ seqLength, firstWindow, count }: EvaluationBatchOptions): Batch {
    return new Batch(call(() => this.#native.evaluationBatch(seqLength, firstWindow, count)))
  }

  /**
   * Checks that every id is below `vocabSize`, going through the whole store unless its largest id is known.
   *
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE` naming the first such id and its position.
   */
  async checkVocab(vocabSize: number, options: LongCallOptions = {}): Promise<void> {
    await longCall(options, async (monitor) => this.#native.checkVocab(vocabSize, monitor))
  }

  /**
   * Compares every chunk with its checksum in `store.json`, and that file with its own, where there are any.
   *
   * @returns how many chunks were compared: 0 where the store has no checksums.
   * @throws KindlingError `ERR_INVALID_STORE` naming the chunks that differ.
   */
  async verify(options: LongCallOptions = {}): Promise<number> {
    return longCall(options, async (monitor) => this.#native.verify(monitor))
  }

  /** The entropy of single tokens in nats: the loss of a model that knows nothing but how frequent each token is. */
  async tokenEntropy(vocabSize: number, options: LongCallOptions = {}): Promise<number> {
    return longCall(options, async (monitor) => this.#native.tokenEntropy(vocabSize, monitor))
  }
}

async function reshapeSettings(
  first: TokenStore | undefined,
  options: ReshapeOptions,
): Promise<native.ReshapeOptions> {
  const tokenizer = options.tokenizer ?? (await first?.tokenizer())
  return {
    ...(options.chunkSize !== undefined && { chunkSize: options.chunkSize }),
    ...(options.tokenDtype && { tokenDtype: options.tokenDtype }),
    ...(tokenizer && { tokenizer: Tokenizer.toNative(tokenizer) }),
    ...(tokenizer?.path && { tokenizerPath: tokenizer.path }),
  }
}
