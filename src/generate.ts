/**
 * Text generation. Each token is sampled in this order: repetition penalty, temperature, top-k,
 * softmax, top-p, draw. The context is the last maxSeqLength tokens, and every token's logits are
 * those of a fresh pass over the context.
 */
import { randomInt } from 'node:crypto'
import { TextDecoder } from 'node:util'
import { z } from 'zod'
import { KindlingError, call, cancelled, settle } from './errors'
import { native, type Native } from './native'
import { abortSignal, checked, checkedValue, type Exact } from './options'
import { StopSequenceMatcher } from './stop-sequences'
import { END_OF_TEXT, Tokenizer } from './tokenizer'
import { Transformer } from './transformer'

/** Options for generating text. */
export interface GenerateOptions {
  /** Maximum number of tokens to generate. Default 200. */
  maxTokens?: number
  /** Divides the logits; 0 always picks the most likely token. Default 1. */
  temperature?: number
  /** Samples from the k most likely tokens only. Default: all. */
  topK?: number
  /** Samples from the fewest most likely tokens whose total probability exceeds p. Default 0.9. */
  topP?: number
  /**
   * For tokens in the context, divides positive logits by this and multiplies negative ones.
   * Default 1.
   */
  repetitionPenalty?: number
  /** Random seed, a non-negative integer. Default: a random one, reported in the result. */
  seed?: number
  /** Stop sequences; the text ends before the first one found. */
  stop?: string | readonly string[]
  /**
   * Ids that end the text, in addition to `<|endoftext|>`, such as the `stopIds` of a model from
   * `load`.
   */
  stopIds?: readonly number[]
  /**
   * Keep the key/value cache once the context is full. Faster, but the tokens differ from those of
   * a fresh pass. Default false.
   */
  rollingCache?: boolean
  /** Start the text with the prompt. Default true. */
  echo?: boolean
  /**
   * Add the special tokens that the model expects around a text, such as Llama 3's
   * `<|begin_of_text|>`, to the prompt (see `Tokenizer.template`). A prompt from `ChatTemplate`
   * already has them. Default true.
   */
  addSpecialTokens?: boolean
  /** Ends the call with `ERR_CANCELLED`. */
  signal?: AbortSignal
}

/** Reason a text ended: an `<|endoftext|>` token, a stop sequence, or `maxTokens`. */
export type StopReason = 'end_of_text' | 'stop' | 'max_tokens'

/** A finished text. */
export interface GenerateResult {
  /** The prompt. */
  prompt: string
  /** The whole text, including the prompt unless `echo` is false. */
  text: string
  /** The generated ids, without the prompt and without a final `<|endoftext|>`. */
  ids: Uint32Array
  /** Reason the text ended. */
  stopReason: StopReason
  /** The seed that was used. */
  seed: number
}

const schema = z.strictObject({
  maxTokens: z
    .int()
    .min(1)
    .max(2 ** 31 - 1)
    .default(200),
  temperature: z.number().min(0).default(1),
  topK: z.int().min(1).optional(),
  topP: z.number().positive().max(1).default(0.9),
  repetitionPenalty: z.number().positive().default(1),
  seed: z.int().min(0).optional(),
  stop: z.union([z.string(), z.array(z.string())]).default([]),
  stopIds: z.array(z.int().min(0)).default([]),
  rollingCache: z.boolean().default(false),
  echo: z.boolean().default(true),
  addSpecialTokens: z.boolean().default(true),
  signal: abortSignal.optional(),
})

/**
 * Milliseconds of decoding per call of the addon, so that a small model returns many tokens per
 * call.
 */
const CALL_MS = 10

/**
 * Generates a continuation of `prompt`. An empty prompt starts from `<|endoftext|>`.
 *
 * @returns an async iterable of pieces of text, each of whole characters; the first is the prompt
 * (see `echo`). Its return value is the `GenerateResult`.
 * @throws KindlingError `ERR_INVALID_ARGUMENT` (an option out of range, or a tokenizer larger than
 * the model's vocabulary), `ERR_CANCELLED`, `ERR_BUSY`.
 */
export async function* generate(
  model: Transformer,
  tokenizer: Tokenizer,
  prompt: string,
  options: GenerateOptions = {},
): AsyncGenerator<string, GenerateResult, void> {
  const settings = checked('generate', schema, options)
  const decoding = new Decoding(model, tokenizer, [prompt], settings)
  try {
    if (settings.echo && prompt !== '') yield prompt
    for (let pieces = await decoding.next(); pieces; pieces = await decoding.next()) {
      if (pieces[0]) yield pieces[0]
    }
    return decoding.results()[0]!
  } finally {
    decoding.close()
  }
}

/**
 * Generates a continuation of each prompt, all in one batch.
 *
 * @throws KindlingError as `generate`.
 */
export async function generateBatch(
  model: Transformer,
  tokenizer: Tokenizer,
  prompts: readonly string[],
  options: GenerateOptions = {},
): Promise<GenerateResult[]> {
  if (!Array.isArray(prompts) || prompts.length === 0) {
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'generateBatch needs at least one prompt')
  }
  checkedValue('generateBatch: prompts', z.array(z.string()), prompts)
  const settings = checked('generateBatch', schema, options)
  const decoding = new Decoding(model, tokenizer, prompts, settings)
  try {
    while (await decoding.next());
    return decoding.results()
  } finally {
    decoding.close()
  }
}

/** One unfinished text. */
interface Row {
  prompt: string
  ids: number[]
  decoder: TextDecoder
  matcher: StopSequenceMatcher
  pieces: string[]
  stopReason: StopReason | null
}

/** Turns the generated ids of one call into text, for each row of the batch. */
class Decoding {
  readonly #generator: Native.Generator
  readonly #rows: Row[]
  readonly #seed: number
  readonly #tokenizer: Tokenizer
  readonly #signal: AbortSignal | undefined

  constructor(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: readonly string[],
    options: Exact<z.output<typeof schema>>,
  ) {
    const { maxTokens, temperature, topK, topP, repetitionPenalty } = options
    const { seed = randomInt(2 ** 32), stop, stopIds, rollingCache, echo } = options
    const { addSpecialTokens } = options
    Tokenizer.toNative(tokenizer)
    this.#tokenizer = tokenizer
    this.#signal = options.signal
    this.#seed = seed
    const endOfText = tokenizer.tokenId(END_OF_TEXT)
    const contexts = prompts.map((prompt) =>
      promptIds(tokenizer, prompt, endOfText, addSpecialTokens),
    )
    this.#rows = prompts.map((prompt) => ({
      prompt,
      ids: [],
      decoder: new TextDecoder('utf-8', { ignoreBOM: true }),
      matcher: new StopSequenceMatcher([stop].flat()),
      pieces: echo ? [prompt] : [],
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
          seed,
          stopIds: endOfText === undefined ? stopIds : [endOfText, ...stopIds],
          rollingCache,
          // The model's vocabulary may be padded beyond the tokenizer's.
          limitVocab: tokenizer.vocabSize,
        }),
    )
  }

  /** Returns the next piece of each row, or null when all have ended. */
  async next(): Promise<string[] | null> {
    if (this.#signal?.aborted) throw cancelled(this.#signal)
    if (this.#rows.every((row) => row.stopReason)) return null
    const drawn = await settle(() => this.#generator.next(CALL_MS))
    return this.#rows.map((row, i) => this.#extend(row, drawn[i]!))
  }

  #extend(row: Row, drawn: Native.DrawnTokens): string {
    if (row.stopReason) return ''
    let piece = ''
    for (const id of drawn.ids) {
      row.ids.push(id)
      piece += row.matcher.push(
        row.decoder.decode(this.#tokenizer.decodeBytes([id]), { stream: true }),
      )
      if (row.matcher.matched) {
        row.stopReason = 'stop'
        this.#generator.endRow(this.#rows.indexOf(row))
        break
      }
    }
    if (!row.stopReason && drawn.ended) {
      piece += row.matcher.push(row.decoder.decode())
      row.stopReason = row.matcher.matched ? 'stop' : drawn.atStopId ? 'end_of_text' : 'max_tokens'
      piece += row.matcher.flush()
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
  addSpecialTokens: boolean,
): Uint32Array {
  if (typeof prompt !== 'string')
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'a prompt must be a string')
  if (prompt !== '') return tokenizer.encode(prompt, { addSpecialTokens })
  if (endOfText !== undefined) return Uint32Array.of(endOfText)
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `an empty prompt needs the token ${END_OF_TEXT}, which this tokenizer does not have; give a prompt`,
  )
}
