/**
 * Token ids on disk: a folder of chunk files as numpy.memmap writes them, one .npy
 * file (int32, int64, uint16), or one raw .bin file of uint16. Batches are made in native memory
 * and never pass through JavaScript.
 */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { z } from 'zod'
import { Batch } from './batch'
import { endsDocuments, findFiles } from './corpus-files'
import { KindlingError, call, settle } from './errors'
import { refuseInputAsOutput } from './store-paths'
import { longCall, type LongCallOptions } from './long-call'
import { native, type Native } from './native'
import { checked, checkedValue, fileNames, isObject } from './options'
import {
  batchSchema,
  encodeSchema,
  evaluationSchema,
  longCallSchema,
  reshapeSchema,
  type BatchOptions,
  type EncodeOptions,
  type EncodeSummary,
  type EvaluationBatchOptions,
  type ReshapeOptions,
  type StoreMetadata,
} from './token-store-options'
import { END_OF_TEXT, Tokenizer } from './tokenizer'

/**
 * A store of token ids. Opening it reads no tokens. The files must not be truncated while it is in
 * use.
 */
export class TokenStore {
  readonly #native: Native.TokenStore

  /** The path it was opened from. */
  readonly path: string

  private constructor(handle: Native.TokenStore, path: string) {
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
   * @param files - text, JSON Lines or Parquet files, in order; gzip and zstd are recognized by
   * content. `data/*.txt` matches files by pattern, a folder means the text files in it, `-`
   * reads standard input.
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
    const names = checkedValue('encodeFiles: files', fileNames, files)
    const handle = Tokenizer.toNative(tokenizer)
    const { signal, onProgress, keepWhenAborted, ...values } = checked(
      'encodeFiles',
      encodeSchema,
      options,
    )
    const { files: found, format } = await findFiles(names, values.format)
    const hasEot = tokenizer.tokenId(END_OF_TEXT) !== undefined
    const appendEot = values.appendEot ?? (hasEot && endsDocuments(found, format))
    const settings = {
      threads: native.availableThreads(),
      keepWhenCancelled: keepWhenAborted,
      ...values,
      ...(format && { format }),
      appendEot,
      ...(tokenizer.path && { tokenizerPath: tokenizer.path }),
    }
    const monitored = { ...(signal && { signal }), ...(onProgress && { onProgress }) }
    const { valid, ...summary } = await longCall(monitored, async (monitor) =>
      native.encodeFiles(found, handle, out, settings, monitor),
    )
    return { ...summary, appendEot, valid: valid ?? null }
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
    checkedValue('TokenStore.merge: stores', z.array(z.unknown()), stores)
    const given = checked('TokenStore.merge', reshapeSchema, options)
    const handles = Array.from(stores, (store) => TokenStore.toNative(store))
    await refuseInputAsOutput(
      stores.map(({ path }) => path),
      out,
    )
    const settings = await reshapeSettings(stores[0], given)
    const { train } = await longCall(given, async (monitor) =>
      native.mergeStores(handles, out, settings, monitor),
    )
    return TokenStore.open(train)
  }

  /**
   * Splits a store: tokens before `at` go to `train_chunks` of the folder `out`, the rest to
   * `valid_chunks`.
   *
   * @throws KindlingError like `merge`; `ERR_INVALID_ARGUMENT` if a part would be empty.
   */
  static async split(
    store: TokenStore,
    at: number,
    out: string,
    options: ReshapeOptions = {},
  ): Promise<{ train: TokenStore; valid: TokenStore }> {
    const handle = TokenStore.toNative(store)
    const given = checked('TokenStore.split', reshapeSchema, options)
    await refuseInputAsOutput([store.path], out)
    const settings = await reshapeSettings(store, given)
    const { train, valid } = await longCall(given, async (monitor) =>
      native.splitStore(handle, at, out, settings, monitor),
    )
    return { train: await TokenStore.open(train), valid: await TokenStore.open(valid!) }
  }

  /**
   * Opens the tokenizer that `store.json` names; null if it is missing or is not the one that the
   * store was encoded with.
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

  /** Returns the metadata in `store.json`. */
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
    const given = checked('batch', batchSchema, options)
    const settings = { accumulate: given.microBatch + 1, ...given }
    return new Batch(call(() => this.#native.batch(settings)))
  }

  /** @internal */
  static toNative(store: TokenStore): Native.TokenStore {
    if (isObject(store) && #native in store) return store.#native
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
  evaluationBatch(options: EvaluationBatchOptions): Batch {
    const { seqLength, firstWindow, count } = checked('evaluationBatch', evaluationSchema, options)
    return new Batch(call(() => this.#native.evaluationBatch(seqLength, firstWindow, count)))
  }

  /**
   * Checks that every id is below `vocabSize`; reads all of them unless its largest id is
   * known.
   *
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE` naming the first such id and its position.
   */
  async checkVocab(vocabSize: number, options: LongCallOptions = {}): Promise<void> {
    const given = checked('checkVocab', longCallSchema, options)
    await longCall(given, async (monitor) => this.#native.checkVocab(vocabSize, monitor))
  }

  /**
   * Verifies the checksums of `store.json` and of every chunk.
   *
   * @returns the number of chunks verified; 0 if the store has no checksums.
   * @throws KindlingError `ERR_INVALID_STORE` naming the chunks that differ.
   */
  async verify(options: LongCallOptions = {}): Promise<number> {
    const given = checked('verify', longCallSchema, options)
    return longCall(given, async (monitor) => this.#native.verify(monitor))
  }

  /**
   * Computes the unigram entropy in nats: the loss of a model that knows only the frequency of each
   * token.
   */
  async tokenEntropy(vocabSize: number, options: LongCallOptions = {}): Promise<number> {
    const given = checked('tokenEntropy', longCallSchema, options)
    return longCall(given, async (monitor) => this.#native.tokenEntropy(vocabSize, monitor))
  }
}

async function reshapeSettings(
  first: TokenStore | undefined,
  options: ReshapeOptions,
): Promise<Native.ReshapeOptions> {
  const tokenizer = options.tokenizer ?? (await first?.tokenizer())
  return {
    ...(options.chunkSize !== undefined && { chunkSize: options.chunkSize }),
    ...(options.tokenDtype && { tokenDtype: options.tokenDtype }),
    ...(tokenizer && { tokenizer: Tokenizer.toNative(tokenizer) }),
    ...(tokenizer?.path && { tokenizerPath: tokenizer.path }),
  }
}
