/** Options of token stores, and the schemas that check them. */
import { z } from 'zod'
import { limits } from './limits'
import type { LongCallOptions } from './long-call'
import { longCallFields } from './options'
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
   * Integer type of the chunk files; `uint16` works for vocabularies of up to 65536 tokens. Default
   * `int32`.
   */
  tokenDtype?: 'int32' | 'uint16'
  /**
   * Threads that encode; the store does not depend on their number. Default: the cores available to
   * this process.
   */
  threads?: number
  /**
   * Format of the files. Default: JSON Lines if the name ends in .jsonl or .ndjson (before .gz or
   * .zst), Parquet if it ends in .parquet, else text.
   */
  format?: 'text' | 'jsonl' | 'parquet'
  /** The JSON Lines field or Parquet column that holds the text. Default `text`. */
  textField?: string
  /**
   * Unit that counts as a document: a file, a line, or a block of lines between blank lines. Line
   * breaks between documents are dropped, and no token spans two documents. Default: `line` for
   * JSON Lines, `file` for text.
   */
  document?: 'file' | 'line' | 'block'
  /**
   * Append `<|endoftext|>` to every non-empty document. Default: true for JSON Lines, Parquet and
   * several files, if the tokenizer has this token; one text file is left as it is.
   */
  appendEot?: boolean
  /** Continue where a killed call with the same files and options stopped. Default true. */
  resume?: boolean
  /**
   * If the call is aborted, keep its work for the next call, as if it had been killed. Default
   * false.
   */
  keepWhenAborted?: boolean
}

/** The result of encoding. */
export interface EncodeSummary {
  /** Number of tokens. */
  tokens: number
  /** Bytes of the encoded text, including each appended `<|endoftext|>`. */
  bytes: number
  /** Whether `<|endoftext|>` was appended to every document. */
  appendEot: boolean
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
 * - `dense`: like `epoch`, with one window per start position.
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

const count = z.int().min(1)
const tokenDtype = z.enum(['int32', 'uint16'])
export const longCallSchema = z.strictObject(longCallFields)
export const encodeSchema = z.strictObject({
  ...longCallFields,
  chunkSize: count.default(500_000),
  validFraction: z.number().min(0).lt(1).default(0),
  tokenDtype: tokenDtype.default('int32'),
  threads: limits.threads.optional(),
  format: z.enum(['text', 'jsonl', 'parquet']).optional(),
  textField: z.string().default('text'),
  document: z.enum(['file', 'line', 'block']).optional(),
  appendEot: z.boolean().optional(),
  resume: z.boolean().default(true),
  keepWhenAborted: z.boolean().default(false),
})
export const reshapeSchema = z.strictObject({
  ...longCallFields,
  chunkSize: count.optional(),
  tokenDtype: tokenDtype.optional(),
  tokenizer: z.custom<Tokenizer>((value) => value instanceof Tokenizer).optional(),
})
export const batchSchema = z.strictObject({
  batchSize: limits.batch,
  seqLength: limits.positions,
  seed: z.int().min(0).default(0),
  step: z.int().min(1),
  microBatch: z.int().min(0).default(0),
  accumulate: limits.batch.optional(),
  sampling: z.enum(['random', 'epoch', 'sequential', 'dense']).default('random'),
})
export const evaluationSchema = z.strictObject({
  seqLength: limits.positions,
  firstWindow: z.int().min(0),
  count: limits.batch,
})
