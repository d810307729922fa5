/**
 * Conversion between text and token ids: byte-level BPE, or one token per character.
 * Reads and writes GPT-2's vocab.json and merges.txt, and Hugging Face's tokenizer.json.
 */
import { types } from 'node:util'
import { z } from 'zod'
import { expandFiles, findFiles } from './corpus-files'
import { KindlingError, call, settle } from './errors'
import { limits } from './limits'
import { longCall, type LongCallOptions } from './long-call'
import { native, type Native } from './native'
import {
  callback,
  checked,
  checkedValue,
  fileNames,
  isObject,
  longCallFields,
  shown,
} from './options'

/** The special token that separates documents. */
export const END_OF_TEXT = '<|endoftext|>'

/** Options for training a tokenizer. */
export interface TrainTokenizerOptions extends LongCallOptions {
  /**
   * Vocabulary size, including special tokens and the 256 bytes. Required for `bpe`; `chars` has
   * one per character.
   */
  vocabSize?: number
  /**
   * Special tokens of at most 1,024 bytes; they get the first ids and are never part of a merge.
   * Default: none.
   */
  specialTokens?: readonly string[]
  /** Byte-level BPE, or one token per code point. Default `bpe`. */
  type?: 'bpe' | 'chars'
  /**
   * Threads that count pre-tokens; the result does not depend on their number. Default: the cores
   * available to this process.
   */
  threads?: number
  /**
   * Splits text into pre-tokens, which merges do not cross: `gpt2`, `smollm`, `cl100k`, `llama3`,
   * `qwen2`, or a regular expression of at most 16 KiB. A regular expression is slower and loads
   * each file into memory. Default `gpt2`.
   */
  pattern?: string
  /** Minimum number of occurrences for a pair to be merged. Default 1. */
  minFrequency?: number
  /** Maximum number of bytes to read, over all files, after decompression. Default: all. */
  maxBytes?: number
  /**
   * Format of the files. Default: JSON Lines if the name ends in .jsonl or .ndjson (before .gz or
   * .zst), Parquet if it ends in .parquet, else text.
   */
  format?: 'text' | 'jsonl' | 'parquet'
  /** The JSON Lines field or Parquet column that holds the text. Default `text`. */
  textField?: string
  /**
   * Called from time to time with the number of merges so far and in total. If it throws, the call
   * fails with that error.
   */
  onMerge?: (merges: number, wanted: number) => void
}

/** The size of files in tokens and bytes. */
export interface TokenCount {
  tokens: number
  bytes: number
  /** Bytes of invalid UTF-8, read as U+FFFD. */
  replacedBytes: number
}

/**
 * Text in pieces: any iterable or stream of strings. Pieces may split words and even surrogate
 * pairs.
 */
export type TextPieces = Iterable<string> | AsyncIterable<string>

const trainSchema = z.strictObject({
  ...longCallFields,
  vocabSize: limits.vocab.optional(),
  specialTokens: z.array(z.string()).default([]),
  type: z.enum(['bpe', 'chars']).default('bpe'),
  threads: limits.threads.optional(),
  pattern: z.string().default('gpt2'),
  minFrequency: z.int().min(1).default(1),
  maxBytes: z.int().min(1).optional(),
  format: z.enum(['text', 'jsonl', 'parquet']).optional(),
  textField: z.string().default('text'),
  onMerge: callback<(merges: number, wanted: number) => void>().optional(),
})
const encodeSchema = z.strictObject({ addSpecialTokens: z.boolean().default(false) })
const countSchema = z.strictObject({ ...longCallFields, threads: limits.threads.optional() })

/** UTF-16 code units per call of the addon. */
const PIECE_UNITS = 1 << 17
/** Bytes of text per block of ids. */
const BLOCK_BYTES = 1 << 17

/** An immutable tokenizer. */
export class Tokenizer {
  readonly #native: Native.Tokenizer
  #path: string | undefined

  private constructor(handle: Native.Tokenizer, path?: string) {
    this.#native = handle
    this.#path = path
  }

  /** The path it was opened from or last saved to, if any. */
  get path(): string | undefined {
    return this.#path
  }

  /** @internal */
  static fromNative(handle: Native.Tokenizer): Tokenizer {
    return new Tokenizer(handle)
  }

  /** @internal The native handle. */
  static toNative(tokenizer: Tokenizer): Native.Tokenizer {
    if (isObject(tokenizer) && #native in tokenizer) return tokenizer.#native
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      'expected a Tokenizer: await Tokenizer.open(folder)',
    )
  }

  /**
   * Trains a tokenizer on text files. Invalid UTF-8 becomes U+FFFD (see `replacedBytes`).
   *
   * @param files - text, JSON Lines or Parquet files; gzip and zstd are recognized by content.
   * `data/*.txt` matches files by pattern, a folder means the text files in it, `-` reads
   * standard input.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS` (a damaged
   * file, a line without the text field), `ERR_INVALID_ARGUMENT` (a vocabulary smaller than the
   * bytes and special tokens), `ERR_CANCELLED`.
   */
  static async train(files: readonly string[], options: TrainTokenizerOptions): Promise<Tokenizer> {
    const names = checkedValue('Tokenizer.train: files', fileNames, files)
    const given = checked('Tokenizer.train', trainSchema, options)
    const { signal, onProgress, onMerge, ...values } = given
    const { files: found, format } = await findFiles(names, values.format)
    const settings = { threads: native.availableThreads(), ...values, ...(format && { format }) }
    let thrown: { error: unknown } | undefined
    const report = (done: number, wanted: number): void => {
      try {
        onMerge?.(done, wanted)
      } catch (error) {
        thrown = { error }
        throw error
      }
    }
    const handle = await longCall(
      { ...(signal && { signal }), ...(onProgress && { onProgress }) },
      async (monitor) =>
        longCall(
          { ...(signal && { signal }), ...(onMerge && { onProgress: report }) },
          async (merging) => native.Tokenizer.train(found, settings, monitor, merging),
        ),
    ).catch((error: unknown) => {
      throw thrown ? thrown.error : error
    })
    return new Tokenizer(handle)
  }

  /**
   * Reads a vocabulary and merges in GPT-2's format.
   *
   * @param specialTokens - special tokens; those missing from the vocabulary are appended to it.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_TOKENIZER` (files that are damaged or
   * disagree).
   */
  static async fromFiles(
    vocab: string,
    merges: string,
    specialTokens: readonly string[] = [],
  ): Promise<Tokenizer> {
    const special = checkedValue(
      'Tokenizer.fromFiles: specialTokens',
      z.array(z.string()),
      specialTokens,
    )
    return new Tokenizer(
      await settle(async () => native.Tokenizer.fromFiles(vocab, merges, special)),
    )
  }

  /**
   * Opens a saved tokenizer or a Hugging Face tokenizer.json.
   *
   * @param path - the folder, or the path of tokenizer.json.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_TOKENIZER`.
   */
  static async open(path: string): Promise<Tokenizer> {
    return new Tokenizer(await settle(async () => native.Tokenizer.open(path)), path)
  }

  /**
   * Writes vocab.json, merges.txt and tokenizer.json into `folder`.
   *
   * @throws KindlingError `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`; nothing is left half-written.
   */
  async save(folder: string): Promise<void> {
    await settle(async () => this.#native.save(folder))
    this.#path = folder
  }

  /** Number of ids; every id is below it. */
  get vocabSize(): number {
    return this.#native.vocabSize
  }

  /** Number of merges; 0 for a character-level tokenizer. */
  get numMerges(): number {
    return this.#native.numMerges
  }

  /**
   * Bytes of invalid UTF-8 in the training text, read as U+FFFD; 0 for a tokenizer that was opened.
   */
  get replacedBytes(): number {
    return this.#native.replacedBytes
  }

  /** The special tokens and their ids. */
  get specialTokens(): Record<string, number> {
    return Object.fromEntries(this.#native.specialTokens.map(({ token, id }) => [token, id]))
  }

  /** Hash of the vocabulary, merges and pattern; tokenizers with equal hashes encode alike. */
  get hash(): string {
    return this.#native.hash
  }

  /**
   * Encodes a text. Special tokens in it become their ids; a lone surrogate is read as U+FFFD.
   *
   * @param options - `addSpecialTokens`: add the special tokens that the model expects around a
   * text, such as Llama 3's `<|begin_of_text|>` (see `template`). Default false.
   * @throws KindlingError `ERR_UNKNOWN_CHARACTER` if the vocabulary lacks a character.
   */
  encode(text: string, options: { addSpecialTokens?: boolean } = {}): Uint32Array {
    const { addSpecialTokens } = checked('Tokenizer.encode', encodeSchema, options)
    return call(() => this.#native.encode(text, addSpecialTokens))
  }

  /**
   * The ids that encoding with `addSpecialTokens` puts before and after a text. A tokenizer trained
   * with Kindling has none.
   */
  get template(): { before: number[]; after: number[] } {
    const [before = [], after = []] = this.#native.template
    return { before, after }
  }

  /**
   * Counts the tokens of files, block by block, without keeping them.
   *
   * @param files - as for `train`.
   * @param options - `threads` defaults to the cores available to this process.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_UNKNOWN_CHARACTER`,
   * `ERR_CANCELLED`.
   */
  async countTokens(
    files: readonly string[],
    options: LongCallOptions & { threads?: number } = {},
  ): Promise<TokenCount> {
    const names = checkedValue('countTokens: files', fileNames, files)
    const { threads = native.availableThreads(), ...rest } = checked(
      'countTokens',
      countSchema,
      options,
    )
    const found = await expandFiles(names)
    return longCall(rest, async (monitor) => this.#native.countTokens(found, threads, monitor))
  }

  /**
   * Decodes ids to text. Invalid UTF-8 becomes U+FFFD.
   *
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE`.
   */
  decode(ids: Uint32Array | Int32Array | readonly number[]): string {
    return call(() => this.#native.decode(uint32(ids)))
  }

  /**
   * Decodes ids to bytes, which need not be whole characters.
   *
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE`.
   */
  decodeBytes(ids: Uint32Array | Int32Array | readonly number[]): Uint8Array {
    return call(() => this.#native.decodeBytes(uint32(ids)))
  }

  /** Returns the id of a token by its text, or undefined. */
  tokenId(token: string): number | undefined {
    return call(() => this.#native.tokenId(token)) ?? undefined
  }

  /** Returns the bytes of the token `id`, or undefined. */
  tokenBytes(id: number): Uint8Array | undefined {
    return call(() => this.#native.tokenBytes(id)) ?? undefined
  }

  /**
   * Encodes text that arrives in pieces, in bounded memory. The ids are those of `encode` on the
   * whole text.
   *
   * @returns blocks of ids.
   * @throws KindlingError `ERR_INVALID_ARGUMENT` (a piece that is not a string),
   * `ERR_UNKNOWN_CHARACTER`.
   */
  async *encodeIterable(pieces: TextPieces): AsyncGenerator<Uint32Array, void, void> {
    const encoder = call(() => this.#native.streamEncoder())
    // The first half of a surrogate pair that is split between two pieces.
    let held = ''
    if (!isIterable(pieces)) {
      throw new KindlingError('ERR_INVALID_ARGUMENT', 'encodeIterable takes an iterable of strings')
    }
    for await (const piece of pieces) {
      if (typeof piece !== 'string') {
        throw new KindlingError(
          'ERR_INVALID_ARGUMENT',
          'encodeIterable takes strings; set an encoding on a stream of bytes',
        )
      }
      for (let start = 0; start < piece.length; start += PIECE_UNITS) {
        const text = held + piece.slice(start, start + PIECE_UNITS)
        const end = isHighSurrogate(text.charCodeAt(text.length - 1))
          ? text.length - 1
          : text.length
        held = text.slice(end)
        if (call(() => encoder.append(text.slice(0, end))) < BLOCK_BYTES) continue
        const ids = await settle(() => encoder.encode())
        if (ids.length > 0) yield ids
      }
    }
    call(() => encoder.append(held))
    const ids = await settle(() => encoder.finish())
    if (ids.length > 0) yield ids
  }
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff
}

function isIterable(pieces: unknown): boolean {
  if (typeof pieces === 'string') return true
  if (typeof pieces !== 'object' || pieces === null) return false
  return Symbol.iterator in pieces || Symbol.asyncIterator in pieces
}

function uint32(ids: Uint32Array | Int32Array | readonly number[]): Uint32Array {
  if (types.isUint32Array(ids)) return ids
  if (!types.isInt32Array(ids) && !Array.isArray(ids)) {
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'token ids must be a Uint32Array or an array')
  }
  const array = new Uint32Array(ids.length)
  for (let position = 0; position < array.length; position++) {
    const id: unknown = ids[position]
    if (typeof id !== 'number' || id >>> 0 !== id) {
      throw new KindlingError(
        'ERR_TOKEN_OUT_OF_RANGE',
        `${shown(id)} at position ${position} is not a token id; ids are non-negative integers`,
      )
    }
    array[position] = id
  }
  return array
}
