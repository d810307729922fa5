/**
 * Text to token ids and back: byte-level BPE, or one token a character.
 * Files: vocab.json and merges.txt as GPT-2 writes them, and Hugging Face tokenizer.json.
 */
import { KindlingError, call, settle } from './errors'
import { longCall, type LongCallOptions } from './long-call'
import { native } from './native'

/** How a tokenizer is trained. */
export interface TrainTokenizerOptions extends LongCallOptions {
  /** Entries of the vocabulary, special tokens and the 256 bytes included. Needed for `bpe`; `chars` takes what the text has. */
  vocabSize?: number
  /** Special tokens; they get the first ids, split the text and take no part in a merge. Default: none. */
  specialTokens?: readonly string[]
  /** Byte-level BPE, or one token a character by code point. Default `bpe`. */
  type?: 'bpe' | 'chars'
  /** Threads that count. Default: the cores this process may use. The result does not depend on it. */
  threads?: number
  /**
   * What cuts text into pre-tokens, which no merge crosses: `gpt2`, `cl100k`, `llama3`, or a regular expression (slower, and
   * a file is then held in memory whole). Default `gpt2`.
   */
  pattern?: string
  /** Merges are learned from pairs that occur at least so often. Default 1. */
  minFrequency?: number
  /** Bytes to be read at most, of all files in their order, once decompressed. Default: all. */
  maxBytes?: number
  /** What the files hold. Default: JSON Lines where the name ends in .jsonl or .ndjson (before .gz or .zst), else text. */
  format?: 'text' | 'jsonl'
  /** The field of JSON Lines that is the text. Default `text`. */
  textField?: string
  /** Called now and then once all is read, with the merges learned and the merges wanted. An error it throws ends the call. */
  onMerge?: (merges: number, wanted: number) => void
}

/** What files have. */
export interface TokenCount {
  tokens: number
  bytes: number
  /** Bytes that were no UTF-8 and were read as U+FFFD. */
  replacedBytes: number
}

/** Text in pieces: any iterable or stream of strings. A piece may end anywhere, even inside a surrogate pair. */
export type TextPieces = Iterable<string> | AsyncIterable<string>

/** UTF-16 units handed over at a time. */
const PIECE = 1 << 17
/** Bytes that are encoded at a time. One thread does it: more would keep more memory than they save time. */
const BLOCK = 1 << 17

/** A trained tokenizer; it does not change. */
export class Tokenizer {
  readonly #native: native.Tokenizer
  #path: string | undefined

  private constructor(handle: native.Tokenizer, path?: string) {
    this.#native = handle
    this.#path = path
  }

  /** Where it was opened or last saved, if it was. */
  get path(): string | undefined {
    return this.#path
  }

  /** @internal The native handle. */
  static toNative(tokenizer: Tokenizer): native.Tokenizer {
    if (tokenizer instanceof Tokenizer) return tokenizer.#native
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'a Tokenizer is needed: Tokenizer.open(folder)')
  }

  /**
   * Trains a tokenizer on text files, read as UTF-8; bytes that are none become U+FFFD (see `replacedBytes`).
   *
   * @param files - text or JSON Lines, plain, gzip or zstd (told by their contents); patterns as `data/*.txt` stand for the
   * files they match, `-` for standard input.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_INVALID_CORPUS` (damaged files, lines without the text),
   * `ERR_INVALID_ARGUMENT` (a vocabulary too small for the bytes and special tokens), `ERR_CANCELLED`.
   */
  static async train(files: readonly string[], options: TrainTokenizerOptions): Promise<Tokenizer> {
    const {
      vocabSize,
      specialTokens = [],
      type = 'bpe',
      threads = native.availableThreads(),
    } = options
    const {
      pattern = 'gpt2',
      minFrequency = 1,
      maxBytes,
      format,
      textField = 'text',
      onMerge,
      signal,
    } = options
    if (!Array.isArray(files))
      throw new KindlingError('ERR_INVALID_ARGUMENT', 'train takes a list of files')
    const settings = {
      ...(vocabSize !== undefined && { vocabSize }),
      specialTokens: [...specialTokens],
      type,
      threads,
      pattern,
      minFrequency,
      ...(maxBytes !== undefined && { maxBytes }),
      ...(format && { format }),
      textField,
    }
    let thrown: { error: unknown } | undefined
    const report = (done: number, wanted: number): void => {
      try {
        onMerge?.(done, wanted)
      } catch (error) {
        thrown = { error }
        throw error
      }
    }
    const handle = await longCall(options, async (monitor) =>
      longCall(
        { ...(signal && { signal }), ...(onMerge && { onProgress: report }) },
        async (merging) => native.Tokenizer.train([...files], settings, monitor, merging),
      ),
    ).catch((error: unknown) => {
      throw thrown ? thrown.error : error
    })
    return new Tokenizer(handle)
  }

  /**
   * Reads a vocabulary and its merges as GPT-2 writes them, under any file names.
   *
   * @param specialTokens - one that is not in the vocabulary is appended.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_TOKENIZER` (files that cannot be read or disagree).
   */
  static async fromFiles(
    vocab: string,
    merges: string,
    specialTokens: readonly string[] = [],
  ): Promise<Tokenizer> {
    return new Tokenizer(
      await settle(() => native.Tokenizer.fromFiles(vocab, merges, [...specialTokens])),
    )
  }

  /**
   * Opens what `save` wrote, or a Hugging Face tokenizer.json.
   *
   * @param path - the folder, or the tokenizer.json itself.
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

  /** Ids in the vocabulary; every id is below it. */
  get vocabSize(): number {
    return this.#native.vocabSize
  }

  /** Merges it learned; 0 for characters. */
  get numMerges(): number {
    return this.#native.numMerges
  }

  /** Bytes of the text `train` read that were no UTF-8 and became U+FFFD; 0 for a tokenizer that was opened. */
  get replacedBytes(): number {
    return this.#native.replacedBytes
  }

  /** The special tokens and their ids. */
  get specialTokens(): Record<string, number> {
    return Object.fromEntries(this.#native.specialTokens.map(({ token, id }) => [token, id]))
  }

  /** Hash of its contents: equal hashes encode alike. */
  get hash(): string {
    return this.#native.hash
  }

  /**
   * The ids of a text. Special tokens in it become their ids. A lone surrogate is read as U+FFFD.
   *
   * @throws KindlingError `ERR_UNKNOWN_CHARACTER` where the vocabulary has no token for a character.
   */
  encode(text: string): Uint32Array {
    return call(() => this.#native.encode(text))
  }

  /**
   * Encodes files, as `train` takes them, block by block and counts their tokens; none is kept.
   *
   * @param options - `threads` defaults to the cores this process may use.
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_EMPTY_CORPUS`, `ERR_UNKNOWN_CHARACTER`, `ERR_CANCELLED`.
   */
  async countTokens(
    files: readonly string[],
    options: LongCallOptions & { threads?: number } = {},
  ): Promise<TokenCount> {
    const { threads = native.availableThreads() } = options
    return longCall(options, async (monitor) =>
      this.#native.countTokens([...files], threads, monitor),
    )
  }

  /**
   * The text of ids; bytes that are no UTF-8 become U+FFFD.
   *
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE`.
   */
  decode(ids: Uint32Array | Int32Array | readonly number[]): string {
    return call(() => this.#native.decode(uint32(ids)))
  }

  /**
   * The bytes of ids, which need not be whole characters.
   *
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE`.
   */
  decodeBytes(ids: Uint32Array | Int32Array | readonly number[]): Uint8Array {
    return call(() => this.#native.decodeBytes(uint32(ids)))
  }

  /** The id of the token written so, or undefined. */
  tokenId(token: string): number | undefined {
    return call(() => this.#native.tokenId(token)) ?? undefined
  }

  /** The bytes of the token with this id, or undefined. */
  tokenBytes(id: number): Uint8Array | undefined {
    return call(() => this.#native.tokenBytes(id)) ?? undefined
  }

  /**
   * Encodes text that comes in pieces, in bounded memory: the same ids as one `encode` of the whole.
   *
   * @returns blocks of ids as they come.
   */
  async *encodeIterable(pieces: TextPieces): AsyncGenerator<Uint32Array, void, void> {
    const encoder = call(() => this.#native.streamEncoder())
    // The first half of a surrogate pair that a piece was cut in.
    let held = ''
    for await (const piece of pieces) {
      if (typeof piece !== 'string') {
        throw new KindlingError(
          'ERR_INVALID_ARGUMENT',
          'encodeIterable takes strings; give a stream an encoding',
        )
      }
      for (let start = 0; start < piece.length; start += PIECE) {
        const text = held + piece.slice(start, start + PIECE)
        const end = isHighSurrogate(text.charCodeAt(text.length - 1))
          ? text.length - 1
          : text.length
        held = text.slice(end)
        if (call(() => encoder.append(text.slice(0, end))) < BLOCK) continue
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

function uint32(ids: Uint32Array | Int32Array | readonly number[]): Uint32Array {
  if (ids instanceof Uint32Array) return ids
  const array = Uint32Array.from(ids)
  const wrong = array.findIndex((id, i) => id !== ids[i])
  if (wrong < 0) return array
  throw new KindlingError(
    'ERR_TOKEN_OUT_OF_RANGE',
    `${String(ids[wrong])} at position ${wrong} is no token id`,
  )
}
