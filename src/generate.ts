/**
 * Text from a model, as it is drawn. Pieces hold whole UTF-8 characters only; the first is the prompt itself.
 *
 * The context is the last maxSeqLength tokens and every token is drawn from what a fresh pass over them would give.
 * In this order: repetition penalty, temperature, top-k, softmax, top-p, draw.
 */
import { randomInt } from 'node:crypto'
import { TextDecoder } from 'node:util'
import { KindlingError, call, cancelled, settle } from './errors'
import { native } from './native'
import { StopWatch } from './stop-strings'
import { Tokenizer } from './tokenizer'
import { Transformer } from './transformer'

/** The token that ends a document. */
export const END_OF_TEXT = '<|endoftext|>'

/** How text is drawn. */
export interface GenerateOptions {
  /** Most tokens to draw. Default 200. */
  maxTokens?: number
  /** Divides the scores; 0 takes the highest one. Default 1. */
  temperature?: number
  /** Draw from the k highest scores only. Default: all. */
  topK?: number
  /** A token stays while the mass before it is at most p. Default 0.9. */
  topP?: number
  /** Scores s of tokens in the context become s / r where s > 0, else s r. Default 1. */
  repetitionPenalty?: number
  /** Seed of the draws, an integer from 0. Default: one is drawn, and reported in the result. */
  seed?: number
  /** Strings that end the text; they are not part of it. */
  stop?: string | readonly string[]
  /** Keep the cache when the context is full: faster, and not what a fresh pass gives. Default false. */
  rollingCache?: boolean
  /** Begin the text with the prompt. Default true. */
  echo?: boolean
  /** Ends the call with `ERR_CANCELLED`. */
  signal?: AbortSignal
}

/** Why a text ended. */
export type StopReason = 'end_of_text' | 'stop' | 'max_tokens'

/** A finished text. */
export interface GenerateResult {
  prompt: string
  /** The whole text, the prompt included unless `echo` is false. */
  text: string
  /** The ids drawn, without the prompt's and without the token that ended it. */
  ids: Uint32Array
  stopReason: StopReason
  /** The seed used. */
  seed: number
}

/** Milliseconds of decoding before tokens are handed over: one crossing serves many tokens of a small model. */
const CALL_MS = 10

/**
 * Draws a continuation of `prompt`; an empty one starts from `<|endoftext|>`.
 *
 * @returns an async iterable of text; its return value is the `GenerateResult`.
 * @throws KindlingError `ERR_INVALID_ARGUMENT` (an option out of its range, or a vocabulary that does not fit the
 * model), `ERR_CANCELLED`, `ERR_BUSY`.
 */
export async function* generate(
  model: Transformer,
  tokenizer: Tokenizer,
  prompt: string,
  options: GenerateOptions = {},
): AsyncGenerator<string, GenerateResult, void> {
  const decoding = new Decoding(model, tokenizer, [prompt], options)
  try {
    if ((options.echo ?? true) && prompt !== '') yield prompt
    for (let pieces = await decoding.next(); pieces; pieces = await decoding.next()) {
      if (pieces[0]) yield pieces[0]
    }
    return decoding.results()[0]!
  } finally {
    decoding.close()
  }
}

/** As `generate` for several prompts at once; each text stops by itself. */
export async function generateBatch(
  model: Transformer,
  tokenizer: Tokenizer,
  prompts: readonly string[],
  options: GenerateOptions = {},
): Promise<GenerateResult[]> {
  if (!Array.isArray(prompts) || prompts.length === 0) {
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'generateBatch takes at least one prompt')
  }
  const decoding = new Decoding(model, tokenizer, prompts, options)
  try {
    while (await decoding.next());
    return decoding.results()
  } finally {
    decoding.close()
  }
}

/** One text in the making. */
interface Row {
  prompt: string
  ids: number[]
  decoder: TextDecoder
  watch: StopWatch
  pieces: string[]
  stopReason: StopReason | null
}

/** The rows of one call, from token ids to text. */
class Decoding {
  readonly #generator: native.Generator
  readonly #rows: Row[]
  readonly #seed: number

  constructor(
    model: Transformer,
    readonly tokenizer: Tokenizer,
    prompts: readonly string[],
    readonly options: GenerateOptions,
  ) {
    const { maxTokens = 200, temperature = 1, topK, topP = 0.9, repetitionPenalty = 1 } = options
    Tokenizer.toNative(tokenizer)
    this.#seed = options.seed ?? randomInt(2 ** 32)
    const stops = typeof options.stop === 'string' ? [options.stop] : (options.stop ?? [])
    const endOfText = tokenizer.tokenId(END_OF_TEXT)
    const contexts = prompts.map((prompt) => promptIds(tokenizer, prompt, endOfText))
    this.#rows = prompts.map((prompt) => ({
      prompt,
      ids: [],
      decoder: new TextDecoder('utf-8', { ignoreBOM: true }),
      watch: new StopWatch(stops),
      pieces: (options.echo ?? true) ? [prompt] : [],
      stopReason: null,
    }))
    this.#generator = call(
      () =>
        new native.Generator(Transformer.toNative(model), contexts, {
          maxTokens,
          temperature,
          ...(topK === undefined ? {} : { topK }),
          topP,
          repetitionPenalty,
          seed: this.#seed,
          stopIds: endOfText === undefined ? [] : [endOfText],
          rollingCache: options.rollingCache ?? false,
          // The model's vocabulary may be padded beyond the tokenizer's.
          limitVocab: tokenizer.vocabSize,
        }),
    )
  }

  /** The next piece of each row, or null when all have ended. */
  async next(): Promise<string[] | null> {
    const { signal } = this.options
    if (signal?.aborted) throw cancelled(signal)
    if (this.#rows.every((row) => row.stopReason)) return null
    const drawn = await settle(() => this.#generator.next(CALL_MS))
    return this.#rows.map((row, i) => this.#extend(row, drawn[i]!))
  }

  #extend(row: Row, drawn: native.DrawnTokens): string {
    if (row.stopReason) return ''
    let piece = ''
    for (const id of drawn.ids) {
      row.ids.push(id)
      piece += row.watch.push(
        row.decoder.decode(this.tokenizer.decodeBytes([id]), { stream: true }),
      )
      if (row.watch.stopped) {
        row.stopReason = 'stop'
        this.#generator.endRow(this.#rows.indexOf(row))
        break
      }
    }
    if (!row.stopReason && drawn.ended) {
      piece += row.watch.push(row.decoder.decode())
      row.stopReason = row.watch.stopped ? 'stop' : drawn.atStopId ? 'end_of_text' : 'max_tokens'
      piece += row.watch.rest()
    }
    if (piece) row.pieces.push(piece)
    return piece
  }

  results(): GenerateResult[] {
    return this.#rows.map((row) => ({
      prompt: row.prompt,
      text: row.pieces.join(''),
      ids: Uint32Array.from(row.ids),
      stopReason: row.stopReason ?? 'max_tokens',
      seed: this.#seed,
    }))
  }

  close(): void {
    this.#generator.close()
  }
}

function promptIds(
  tokenizer: Tokenizer,
  prompt: string,
  endOfText: number | undefined,
): Uint32Array {
  if (typeof prompt !== 'string')
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'a prompt is a string')
  if (prompt !== '') return tokenizer.encode(prompt)
  if (endOfText !== undefined) return Uint32Array.of(endOfText)
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `an empty prompt starts from ${END_OF_TEXT}, which this tokenizer does not have; give a prompt`,
  )
}
