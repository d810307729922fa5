/** The config.json of a run: its options, and what they were resolved to. */
import { z } from 'zod'
import { toCamelCase, toSnakeCase } from '../case'
import { KindlingError, call } from '../errors'
import { checkedValue, problemsIn } from '../options'
import type { TrainOptions } from './config'
import { trainFields } from './fields'
import { isSealed } from './sealed-json'

/** The options of a run, with the vocabulary size of its model. */
export type RunOptions = TrainOptions & { vocabSize: number }

/** Identifies a token store by its contents, whatever its path. */
export interface StoreIdentity {
  /** Number of tokens. */
  length: number
  /** Integer type of the ids. */
  dtype: string
  /** Tokens per chunk file. */
  chunkSize: number
  /** `Tokenizer.hash` of the tokenizer that encoded it, null if unknown. */
  tokenizerHash: string | null
  /** Hash of tokens at places spread over the store. */
  sample: string
  /** Hash of the chunks' checksums in store.json, null if it has none. */
  chunks: string | null
}

/** Contents of config.json: the options and what they were resolved to. */
export interface RunConfig {
  /** Version of the file format. */
  formatVersion: 1
  /** Options of the run, defaults filled in. */
  options: RunOptions
  /**
   * Absolute paths of the stores: the training stores with their weights, and the validation store.
   */
  data: { train: { path: string; weight: number }[]; valid: string | null }
  /** What those stores hold, in the same order; absent in runs of earlier versions. */
  identity?: { train: StoreIdentity[]; valid: StoreIdentity | null } | undefined
  /** `Tokenizer.hash`, or null without a tokenizer. */
  tokenizerHash: string | null
  /** Whether the training data has `<|endoftext|>`; absent without a tokenizer and in older runs. */
  endOfText?: boolean | undefined
  /** Updates of the whole run. */
  totalSteps: number
}

/** Returns the tokens of all training stores; undefined in runs of earlier versions. */
export function trainingTokensOf({ identity }: RunConfig): number | undefined {
  return identity?.train.reduce((sum, { length }) => sum + length, 0)
}

const identitySchema = z.strictObject({
  length: z.int().min(0),
  dtype: z.string(),
  chunk_size: z.int().min(1),
  tokenizer_hash: z.string().nullable(),
  sample: z.string(),
  chunks: z.string().nullable(),
})

const schema = z.strictObject({
  format_version: z.literal(1),
  options: z.strictObject({ ...trainFields, vocab_size: z.int().min(1) }),
  data: z.strictObject({
    // Empty in a run that holds an imported model.
    train: z.array(z.strictObject({ path: z.string(), weight: z.number().positive() })),
    valid: z.string().nullable(),
  }),
  identity: z
    .strictObject({ train: z.array(identitySchema), valid: identitySchema.nullable() })
    .optional(),
  tokenizer_hash: z.string().nullable(),
  end_of_text: z.boolean().optional(),
  total_steps: z.int().min(0),
  checksum: z.string().optional(),
})

/**
 * Checks a configuration that a caller passed; options it lacks take their defaults.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` naming every problem.
 */
export function checkedRunConfig(config: RunConfig): RunConfig {
  const given = call(() => toSnakeCase(config))
  const { checksum: _, ...checked } = checkedValue('config', schema, given)
  return toCamelCase(checked) as RunConfig
}

/**
 * Checks the text of a config.json; options it lacks take their defaults.
 *
 * @throws KindlingError `ERR_INVALID_CHECKPOINT` naming the file and every problem.
 */
export function parseRunConfig(path: string, text: string): RunConfig {
  const fail = (reason: string): KindlingError =>
    new KindlingError('ERR_INVALID_CHECKPOINT', `${path} is damaged: ${reason}`)
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw fail(error instanceof Error ? error.message : String(error))
  }
  const version = (json as { format_version?: unknown } | null)?.format_version
  if (typeof version === 'number' && version > 1) {
    throw new KindlingError(
      'ERR_INVALID_CHECKPOINT',
      `${path} has format_version ${version}; this version of Kindling reads up to 1; update Kindling`,
    )
  }
  const parsed = schema.safeParse(json)
  if (!parsed.success) throw fail(problemsIn(parsed.error))
  const { checksum, ...config } = parsed.data
  if (checksum !== undefined && !isSealed(text, checksum)) {
    throw fail('its checksum differs; if you edited it, remove the line with the checksum')
  }
  return toCamelCase(config) as RunConfig
}
