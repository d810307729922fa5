/**
 * Token ids on disk: a folder of chunk files as numpy.memmap writes them, one .npy
 * file (int32, int64, uint16), or one raw .bin file of uint16. Batches are made in native memory
 * and never pass through JavaScript.
 */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { Batch } from './batch'
import { KindlingError, call, settle } from './errors'
import { refuseInputAsOutput } from './store-paths'
import { longCall, type LongCallOptions } from './long-call'
import { native } from './native'
import { Tokenizer } from './tokenizer'

/** Options for encoding text into a store. */
export interface EncodeOptions extends LongCallOptions {
  /** Tokens per chunk file. Default 500000. */
  chunkSize?: number
  /**
   * Fraction of the tokens, taken from the end, that goes to `valid_chunks`; in [0, 1). Default 0.
   */
  validFraction?: number
  /**
   * Integer type of the chunk files; `uint16` holds vocabularies of at most 65536. Default `int32`.
   */
  tokenDtype?: 'int32' | 'uint16'
  /**
   * Encoding threads; the store does not depend on them. Default: the cores available to this
   * process.
   */
  threads?: number
  /**
   * Format of the files. Default: JSON Lines if the name ends in .jsonl or .ndjson (before .gz or
   * .zst), else text.
   */
  format?: 'text' | 'jsonl'
  /** The JSON Lines field that holds the text. Default `text`. */
  textField?: string
  /**
   * Unit that counts as a document: a file, a line, or a block of lines between blank lines. Line
   * breaks between documents are dropped, and no token spans two documents. Default: `line` for
   * JSON Lines, `file` for text.
   */
  document?: 'file' | 'line' | 'block'
  /** Append `<|endoftext|>` to every non-empty document. Default false. */
  appendEot?: boolean
  /** Continue the work of a killed call with the same files and options. Default true. */
  resume?: boolean
  /** Keep the work of an aborted call for the next one, as if it had been killed. Default false. */
  keepWhenAborted?: boolean
}

/** The result of encoding. */
export interface EncodeSummary {
  /** Number of tokens. */
  tokens: number
  /** Bytes of the encoded text, including each appended `<|endoftext|>`. */
  bytes: number
  /** Bytes of invalid UTF-8 that became U+FFFD. */
  replacedBytes: number
  /** Bytes of text encoded by an earlier, killed call. */
  resumedBytes: number
  /** Folder of the training store. */
  train: string
  /** Folder of the validation store, null if there is none. */
  valid: string | null
}

/** Options for merging or splitting stores. */
export interface ReshapeOptions extends LongCallOptions {
  /** Tokens per chunk file. Default: as in the first store. */
  chunkSize?: number
  /** Integer type of the chunk files. Default: `uint16` if every store has it, else `int32`. */
  tokenDtype?: 'int32' | 'uint16'
  /**
   * Tokenizer of the stores, copied into the output folder. Default: that of the first store, if it
   * can be opened.
   */
  tokenizer?: Tokenizer
}

/** Metadata of a store, from `store.json` or, without one, from the sizes of the files. */
export interface StoreMetadata {
  /** Number of tokens. */
  length: number
  /** Bytes of the encoded text, null if unknown. */
  bytes: number | null
  /** Tokens per chunk file. */
  chunkSize: number
  /** Integer type: `int32`, `int64` or `uint16`. */
  dtype: string
  /** Path of the tokenizer, relative to the store's folder; null if unknown. */
  tokenizerPath: string | null
  /** `Tokenizer.hash` of the tokenizer that encoded the store, null if unknown. */
  tokenizerHash: string | null
  /** The largest token id, null if unknown. */
  maxId: number | null
  /** Bytes of invalid UTF-8 in the input that became U+FFFD. */
  replacedBytes: number
}

/**
 * Order of the windows in batches.
 *
 * - `random`: uniformly random start positions.
 * - `epoch`: each consecutive, non-overlapping window once per epoch, reshuffled for each epoch.
 * - `sequential`: consecutive windows in order, over and over.
 * - `dense`: as `epoch`, with one window per start position.
 */
export type Sampling = 'random' | 'epoch' | 'sequential' | 'dense'

/**
 * Identifies a batch, which is a pure function of these values; a resumed run needs only its step.
 */
export interface BatchOptions {
  /** Windows per batch. */
  batchSize: number
  /** Tokens per window. */
  seqLength: number
  /** Seed of the run, a non-negative integer. Default 0. */
  seed?: number
  /** Step of the run, from 1. */
  step: number
  /** Index among the batches of the step, from 0. Default 0. */
  microBatch?: number
  /** Batches per step. Default: microBatch + 1. */
  accumulate?: number
  /** Order of the windows. Default `random`. */
  sampling?: Sampling
}

/** A range of consecutive windows. */
export interface EvaluationBatchOptions {
  /** Tokens per window. */
  seqLength: number
  /** Index of the first window, from 0. */
  firstWindow: number
  /** Number of windows. */
  count: number
}

const CHUNK_SIZE = 500_000

/**
 * A store of token ids. Opening it reads no tokens. The files must not be truncated while it is in
 * use.
 */
export class TokenStore {
  readonly #native: native.TokenStore

  /** The path it was opened from. */
  readonly path: string

  private constructor(handle: native.TokenStore, path: string) {
    this.#native = handle
    this.path = path
  }

  /**
   * Opens a store.
   *
   * @param path - a folder of chunk files, a .npy or a .bin file.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_STORE` (a missing chunk, sizes that
   * disagree, an unknown dtype).
   */
  static async open(path: string): Promise<TokenStore> {
    return new TokenStore(await settle(() => native.TokenStore.open(path)), path)
  }

  /** Encodes text files as `encodeFiles` does and opens the training store. */
  static async encode(
    files: readonly string[],
    tokenizer: Tokenizer,
    out: string,
    options: EncodeOptions = {},
  ): Promise<TokenStore> {
    return TokenStore.open((await TokenStore.encodeFiles(files, tokenizer, out, options)).train)
  }

  /**
   * Encodes UTF-8 text files in one streaming pass; memory does not depend on their size.
   *
   * @param files - text or JSON Lines files, in order; gzip and zstd are recognized by content.
   * `data/*.txt` matches files by pattern, `-` reads standard input.
   * @param out - output folder, for `tokenizer`, `train_chunks` and, with a `validFraction`,
   * `valid_chunks`; if its name ends in `_chunks`, it is the store itself. An existing store is
   * replaced once the new one is complete. A killed process leaves a hidden folder next to it, from
   * which the same call continues.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS`,
   * `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`, `ERR_CANCELLED`, `ERR_INVALID_ARGUMENT`; nothing is left
   * behind.
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
        'encodeFiles takes a list of files, a tokenizer and an output folder',
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
   * Concatenates stores into a new one.
   *
   * @param out - output folder, for `train_chunks` and the tokenizer; if its name ends in
   * `_chunks`, it is the store itself.
   * @throws KindlingError `ERR_INVALID_ARGUMENT` (stores with different tokenizers),
   * `ERR_TOKEN_OUT_OF_RANGE` (an id that uint16 cannot hold), `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`,
   * `ERR_CANCELLED`; nothing is left behind.
   */
  static async merge(
    stores: readonly TokenStore[],
    out: string,
    options: ReshapeOptions = {},
  ): Promise<TokenStore> {
    const handles = stores.map((store) => TokenStore.toNative(store))
    await refuseInputAsOutput(
      stores.map(({ path }) => path),
      out,
    )
    const settings = await reshapeSettings(stores[0], options)
    const { train } = await longCall(options, async (monitor) =>
      native.mergeStores(handles, out, settings, monitor),
    )
    return TokenStore.open(train)
  }

  /**
   * Splits a store: tokens before `at` go to `train_chunks` of the folder `out`, the rest to
   * `valid_chunks`.
   *
   * @throws KindlingError as `merge`; `ERR_INVALID_ARGUMENT` if a part would be empty.
   */
  static async split(
    store: TokenStore,
    at: number,
    out: string,
    options: ReshapeOptions = {},
  ): Promise<{ train: TokenStore; valid: TokenStore }> {
    const handle = TokenStore.toNative(store)
    await refuseInputAsOutput([store.path], out)
    const settings = await reshapeSettings(store, options)
    const { train, valid } = await longCall(options, async (monitor) =>
      native.splitStore(handle, at, out, settings, monitor),
    )
    return { train: await TokenStore.open(train), valid: await TokenStore.open(valid!) }
  }

  /**
   * Opens the tokenizer that `store.json` names; null if it is missing or not the one that encoded
   * the store.
   */
  async tokenizer(): Promise<Tokenizer | null> {
    const { tokenizerPath, tokenizerHash } = this.metadata
    if (tokenizerPath === null) return null
    const path = resolve(this.path, tokenizerPath)
    const tokenizer = existsSync(path) ? await Tokenizer.open(path) : null
    return tokenizer === null || tokenizer.hash === tokenizerHash ? tokenizer : null
  }

  /** Number of tokens in the store. */
  get length(): number {
    return this.#native.length
  }

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
   * Returns a copy of the tokens from `start` up to but not including `end`.
   *
   * @throws KindlingError `ERR_RANGE_OUT_OF_BOUNDS`.
   */
  loadByRange(start: number, end: number): Int32Array {
    return call(() => this.#native.loadByRange(start, end))
  }

  /**
   * Returns a batch of windows; y is x shifted by one token.
   *
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
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      'expected a TokenStore: await TokenStore.open(path)',
    )
  }

  /**
   * Returns the number of consecutive windows of `seqLength` tokens, each followed by at least one
   * token.
   *
   * @throws KindlingError `ERR_STORE_TOO_SHORT` if there are none.
   */
  numWindows(seqLength: number): number {
    return call(() => this.#native.numWindows(seqLength))
  }

  /**
   * Returns a batch of consecutive windows for evaluation; window i starts at token i x seqLength.
   *
   * @throws KindlingError `ERR_STORE_TOO_SHORT`, `ERR_INVALID_ARGUMENT` (windows past the end).
   */
  evaluationBatch({ seqLength, firstWindow, count }: EvaluationBatchOptions): Batch {
    return new Batch(call(() => this.#native.evaluationBatch(seqLength, firstWindow, count)))
  }

  /**
   * Checks that every id is below `vocabSize`; reads all of them unless its largest id is
   * known.
   *
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE` naming the first such id and its position.
   */
  async checkVocab(vocabSize: number, options: LongCallOptions = {}): Promise<void> {
    await longCall(options, async (monitor) => this.#native.checkVocab(vocabSize, monitor))
  }

  /**
   * Verifies the checksums of `store.json` and of every chunk.
   *
   * @returns the number of chunks verified; 0 if the store has no checksums.
   * @throws KindlingError `ERR_INVALID_STORE` naming the chunks that differ.
   */
  async verify(options: LongCallOptions = {}): Promise<number> {
    return longCall(options, async (monitor) => this.#native.verify(monitor))
  }

  /**
   * Computes the unigram entropy in nats: the loss of a model that knows only the frequency of each
   * token.
   */
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
