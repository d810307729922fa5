/**
 * The options of a run, defined once: flags, config file, the Trainer's options and the docs all come from this schema.
 * A flag wins over the config file, that over the preset, that over the default.
 */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { toSnakeCase, type CamelCased } from '../case'
import { KindlingError } from '../errors'
import { PRESETS } from './presets'

const count = z.int().min(1)
const countOrZero = z.int().min(0)
const rate = z.number().min(0)
const share = z.number().min(0).max(1)

/** Sizes of the model. */
export const modelFields = {
  d_model: count.default(512).describe('width of the residual stream'),
  num_heads: count.default(8).describe('attention heads; divides d_model'),
  num_kv_heads: count
    .optional()
    .describe('key/value heads; divides num_heads (default: num_heads)'),
  d_ff: count.default(1344).describe('width of the feed-forward layer'),
  num_layers: count.default(6).describe('number of blocks'),
  vocab_size: count.optional().describe("vocabulary (default: the tokenizer's, 32000 without one)"),
  max_seq_length: count.default(512).describe('longest context, in tokens'),
  theta: z.number().positive().default(100_000).describe('base of the rotary angles'),
  tie_embeddings: z
    .boolean()
    .default(false)
    .describe('use the embedding matrix as the output layer'),
  qkv_bias: z.boolean().default(false).describe('give the query, key and value projections a bias'),
}

const dataFields = {
  corpus: z.string().optional().describe('text file, encoded once into <data_dir>/<its name>/'),
  data: z
    .string()
    .optional()
    .describe('what `kindling encode` wrote, a _chunks folder, a .npy or a .bin file'),
  mixture: z
    .array(z.string().regex(/^.+=\d*\.?\d+(e-?\d+)?$/, 'must be DIR=WEIGHT, as data/web=0.8'))
    .min(1)
    .optional()
    .describe(
      'stores with their shares of the windows, in place of data: data/web=0.8 data/books=0.2',
    ),
  valid: z
    .string()
    .optional()
    .describe('store of the validation tokens (default: beside the training data)'),
  data_dir: z.string().default('data').describe('where corpora and stores are kept'),
  corpus_size: z.string().optional().describe('names the store <data_dir>/<corpus_size>_chunks'),
  chunk_size: count.default(500_000).describe('tokens of a chunk file'),
  vocab_path: z
    .string()
    .default('data/vocab_32000.txt')
    .describe('vocabulary, used where no other tokenizer is known'),
  merges_path: z.string().default('data/merges_32000.txt').describe('merges that belong to it'),
  special_tokens: z
    .array(z.string().min(1))
    .default(['<|endoftext|>'])
    .describe('special tokens, any number'),
  sampling: z
    .enum(['random', 'epoch', 'sequential', 'dense'])
    .default('random')
    .describe(
      'windows: random places; epoch: each consecutive one once, in random order; sequential: in order; dense: a window at each place once, in random order',
    ),
  prefetch: countOrZero
    .default(2)
    .describe('batches made ahead on a thread of their own (0: none)'),
  seq_length: count.default(256).describe('tokens of a training window'),
  batch_size: count.default(32).describe('windows of a batch'),
  accumulate: count.default(1).describe('batches whose gradients are added up for one update'),
}

const optimizerFields = {
  num_epochs: z.number().positive().default(10).describe('passes over the tokens'),
  max_steps: count
    .optional()
    .describe('number of updates, in place of the one computed from num_epochs'),
  lr: rate.default(1e-4).describe('highest learning rate'),
  lr_min: rate.default(1e-5).describe('learning rate at the end'),
  warmup_ratio: share.default(0.1).describe('share of the updates that warm up'),
  warmfix_ratio: share
    .default(0.9)
    .describe('share of the updates after which the rate stays lr_min'),
  optimizer: z.enum(['adamw', 'sgd']).default('adamw').describe('optimizer'),
  decay: z
    .enum(['all', 'matrices'])
    .default('all')
    .describe('what weight decay covers: all parameters or matrices'),
  weight_decay: rate.default(0.01).describe('weight decay'),
  betas: z
    .array(z.number().min(0).lt(1))
    .length(2)
    .default([0.9, 0.95])
    .describe("decay rates of AdamW's moments"),
  eps: rate.default(1e-8).describe("added to the root of AdamW's second moment"),
  max_norm: rate.default(1).describe('largest global gradient norm (0: no clipping)'),
}

const runFields = {
  run: z.string().optional().describe('folder of the run (default: runs/<date-time>)'),
  resume: z
    .boolean()
    .default(false)
    .describe('continue the run of --run; its options come from its config.json'),
  stop_at_step: count.optional().describe('save and end at this update, the schedule untouched'),
  log_interval: count.default(20).describe('updates between two lines of metrics'),
  save_interval: countOrZero
    .default(500)
    .describe('updates between two checkpoints (0: at the end only)'),
  eval_interval: countOrZero.default(500).describe('updates between two evaluations (0: none)'),
  eval_tokens: count.default(262_144).describe('validation tokens of an evaluation, at most'),
  sample_interval: countOrZero
    .default(500)
    .describe('updates between two samples of text (0: none)'),
  sample_prompt: z
    .string()
    .optional()
    .describe('prompt of the samples (default: the start of a document)'),
  keep: count.default(3).describe('checkpoints kept'),
  seed: countOrZero.default(0).describe('seed of the weights, the batches and the samples'),
  threads: count
    .optional()
    .describe('threads of the CPU engine (default: the cores this process may use)'),
  recompute: z
    .boolean()
    .default(false)
    .describe("keep less for the backward pass, which runs each block's forward pass again"),
  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d+)?)$/, 'must be cpu, cuda or cuda:N')
    .default('auto')
    .describe('cpu, cuda or cuda:N (default: cuda where there is one, else cpu)'),
  dtype: z.enum(['f32', 'bf16']).default('f32').describe('arithmetic of the matrix products'),
  tf32: z
    .boolean()
    .default(false)
    .describe('on cuda, round products of f32 to TensorFloat-32: faster'),
  peak_tflops: z
    .number()
    .positive()
    .optional()
    .describe(
      'peak of the device in TFLOP/s, for the mfu of metrics (default: that of a known GPU)',
    ),
  preset: z
    .enum(Object.keys(PRESETS) as [string, ...string[]])
    .optional()
    .describe(`sizes and batch by name: ${Object.keys(PRESETS).join(', ')}`),
}

/** Every option of `kindling train`, by its name in the config file. */
export const trainFields = { ...modelFields, ...dataFields, ...optimizerFields, ...runFields }

/** Options of a run, defaults filled in. */
export type TrainOptions = z.output<z.ZodObject<typeof trainFields>>

/** What a user gives, by any of the ways. */
export type GivenOptions = Partial<Record<keyof TrainOptions, unknown>>

/** The options of `Trainer`: those of `kindling train`, in camelCase. */
export type TrainerOptions = CamelCased<Partial<z.input<z.ZodObject<typeof trainFields>>>>

/** What may differ when a run is resumed. */
export const CHANGEABLE: ReadonlySet<string> = new Set([
  'threads',
  'prefetch',
  'recompute',
  'device',
  'peak_tflops',
  'log_interval',
  'save_interval',
  'eval_interval',
  'sample_interval',
  'keep',
  'stop_at_step',
  'run',
  'resume',
])

/** Options and the names of those that were given rather than defaulted. */
export interface ResolvedOptions {
  options: TrainOptions
  given: ReadonlySet<string>
}

/**
 * Puts flags, config file, preset and defaults together.
 *
 * @param flags - options by their snake_case names.
 * @param configFile - path of a JSON file with the same names.
 * @throws KindlingError `ERR_USAGE` (an unknown name, a wrong value), `ERR_INVALID_CONFIG` (sizes that make no model).
 */
export function resolveOptions(flags: GivenOptions, configFile?: string): ResolvedOptions {
  const file = configFile === undefined ? {} : readConfigFile(configFile)
  const merged: Record<string, unknown> = { ...file, ...withoutUndefined(flags) }
  const preset = typeof merged['preset'] === 'string' ? presetOptions(merged['preset']) : {}
  const given = { ...preset, ...merged }
  const options = parse(trainSchema, given)
  checkSizes(options)
  return { options, given: new Set(Object.keys(given)) }
}

/** The options of `Trainer` by their names in files. */
export function fromCamelCase(options: TrainerOptions): GivenOptions {
  return toSnakeCase(options)
}

export const trainSchema = z.strictObject(trainFields)

/** Checks values against a schema; every problem is named in one message. */
export function parse<T extends z.ZodType>(schema: T, values: unknown): z.output<T> {
  const result = schema.safeParse(values)
  if (result.success) return result.data
  const problems = result.error.issues.map((issue) => {
    if (issue.code === 'unrecognized_keys') return `unknown option ${issue.keys.join(', ')}`
    return `${issue.path.join('.')}: ${issue.message}`
  })
  throw new KindlingError('ERR_USAGE', `${problems.join('; ')}; see --help for every option`)
}

function readConfigFile(path: string): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new KindlingError('ERR_NOT_FOUND', `config file ${path} cannot be read; check the path`, {
      cause: error,
    })
  }
  try {
    const values: unknown = JSON.parse(text)
    if (typeof values === 'object' && values !== null && !Array.isArray(values)) {
      return values as Record<string, unknown>
    }
    throw new SyntaxError('not an object')
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new KindlingError(
      'ERR_USAGE',
      `config file ${path} is no JSON object of options: ${reason}`,
    )
  }
}

function presetOptions(name: string): Record<string, unknown> {
  const preset = PRESETS[name]
  if (!preset) return {}
  const { context, ...sizes } = preset
  return { ...sizes, seq_length: context, max_seq_length: context }
}

function withoutUndefined(values: GivenOptions): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined))
}

/** What no field can check by itself; the engine checks the same again. */
function checkSizes(options: TrainOptions): void {
  const { d_model, num_heads, num_kv_heads = num_heads, seq_length, max_seq_length } = options
  const fail = (message: string): never => {
    throw new KindlingError('ERR_INVALID_CONFIG', message)
  }
  if (d_model % num_heads !== 0) {
    fail(`d_model ${d_model} is not divisible by num_heads ${num_heads}; choose a multiple`)
  }
  if ((d_model / num_heads) % 2 !== 0) {
    fail(
      `head size ${d_model / num_heads} (d_model / num_heads) is odd; rotary positions need an even one`,
    )
  }
  if (num_heads % num_kv_heads !== 0) {
    fail(`num_heads ${num_heads} is not divisible by num_kv_heads ${num_kv_heads}`)
  }
  if (seq_length > max_seq_length) {
    fail(`seq_length ${seq_length} is above max_seq_length ${max_seq_length}; raise max_seq_length`)
  }
  if (options.warmup_ratio > options.warmfix_ratio) {
    fail(`warmup_ratio ${options.warmup_ratio} is above warmfix_ratio ${options.warmfix_ratio}`)
  }
}
