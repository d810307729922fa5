/**
 * The options of a run, defined once, in snake_case. The flags, the config file, the options of
 * `Trainer` and the help are all derived from these fields.
 *
 * `.meta()` holds what the help needs: `value` is the placeholder of the value, as in `--corpus
 * <file>`; `common` marks the options that `--help` shows. `--help-all` shows all.
 */
import { z } from 'zod'
import { limits } from '../limits'
import { COURSE, PRESETS } from './presets'

const count = z.int().min(1)
const countOrZero = z.int().min(0)
const rate = z.number().min(0)
const fraction = z.number().min(0).max(1)
const file = { value: 'file' }
const dir = { value: 'dir' }
const path = { value: 'path' }
const common = { common: true }

const dataFields = {
  corpus: z
    .union([z.string(), z.array(z.string()).min(1)])
    .transform((names) => [names].flat())
    .optional()
    .describe('text to train on: files, patterns or folders; encoded once into <data_dir>/<name>/')
    .meta(file)
    .meta(common),
  text_field: z
    .string()
    .default('text')
    .describe('JSON Lines field or Parquet column that holds the text of the corpus')
    .meta({ value: 'name' }),
  data: z
    .string()
    .optional()
    .describe(
      'output folder of `kindling encode`, a _chunks folder, a .npy, or a .bin of uint16 ids',
    )
    .meta(path)
    .meta(common),
  mixture: z
    .array(
      z
        .string()
        .regex(/^.+=\d*\.?\d+(e-?\d+)?$/, 'must be DIR=WEIGHT, as data/web=0.8')
        .meta({ value: 'dir=weight' }),
    )
    .min(1)
    .optional()
    .describe('token stores to mix by weight, in place of data: data/web=0.8 data/books=0.2'),
  valid: z
    .string()
    .optional()
    .describe(
      'validation data, in any form that data takes (default: the store next to the training data)',
    )
    .meta(path),
  sampling: z
    .enum(['random', 'epoch', 'sequential', 'dense'])
    .default('random')
    .describe(
      'order of the training windows; random: random start positions; epoch: consecutive windows, ' +
        'shuffled; sequential: consecutive windows in order; dense: one window per start position, ' +
        'shuffled',
    ),
  seq_length: limits.positions.default(256).describe('tokens per training window').meta(common),
  batch_size: limits.batch.default(32).describe('windows per batch').meta(common),
  accumulate: limits.batch.default(1).describe('batches per update (gradient accumulation)'),
  prefetch: limits.prefetch
    .default(2)
    .describe('batches prepared ahead on another thread (0: none)'),
  data_dir: z.string().default('data').describe('folder for encoded corpora and stores').meta(dir),
  corpus_size: z
    .string()
    .optional()
    .describe('train on the store <data_dir>/<corpus_size>_chunks')
    .meta({ value: 'name' }),
  append_eot: z
    .boolean()
    .optional()
    .describe(
      'add <|endoftext|> after every document of the corpus (default: for JSON Lines, Parquet and ' +
        'several files)',
    ),
  chunk_size: count.default(500_000).describe('tokens per chunk file'),
  vocab_path: z
    .string()
    .default('data/vocab_32000.txt')
    .describe('vocabulary file, used if the data has no tokenizer')
    .meta(file),
  merges_path: z
    .string()
    .default('data/merges_32000.txt')
    .describe('merges file that belongs to vocab_path')
    .meta(file),
  special_tokens: z
    .array(z.string().min(1))
    .default(['<|endoftext|>'])
    .describe('special tokens of the tokenizer'),
}

const modelFields = {
  from: z
    .string()
    .optional()
    .describe(
      'start from the weights of a run, a checkpoint, a Hugging Face folder, a .gguf file or ' +
        'hf:org/name',
    )
    .meta({ value: 'source' })
    .meta(common),
  preset: z
    .enum([COURSE, ...Object.keys(PRESETS)])
    .optional()
    .describe(
      'model sizes and batch size by name; course: the defaults, instead of a model chosen ' +
        'for the corpus',
    )
    .meta(common),
  vocab_size: limits.vocab
    .optional()
    .describe("vocabulary size (default: the tokenizer's, else 32000)")
    .meta(common),
  d_model: limits.width.default(512).describe('width of the residual stream').meta(common),
  num_heads: limits.width.default(8).describe('attention heads; must divide d_model').meta(common),
  num_kv_heads: limits.width
    .optional()
    .describe('key/value heads; must divide num_heads (default: num_heads)'),
  d_ff: limits.width.default(1344).describe('width of the feed-forward layer'),
  num_layers: limits.layers.default(6).describe('number of blocks').meta(common),
  max_seq_length: limits.positions.default(512).describe('longest context, in tokens'),
  theta: z
    .number()
    .positive()
    .default(100_000)
    .describe('base of the rotary position embeddings (RoPE)'),
  rope_scaling: z
    .array(z.number().positive())
    .length(4)
    .optional()
    .describe(
      'RoPE scaling of Llama 3.1: factor, low_freq_factor, high_freq_factor, ' +
        'original_max_position_embeddings',
    ),
  tie_embeddings: z
    .boolean()
    .default(false)
    .describe('use the embedding matrix as the output layer'),
  qkv_bias: z
    .boolean()
    .default(false)
    .describe('add a bias to the query, key and value projections'),
  head_size: limits.width.optional().describe('width of each head (default: d_model / num_heads)'),
  norm_eps: z.number().positive().default(1e-5).describe('epsilon of every RMSNorm'),
  qk_norm: z
    .boolean()
    .default(false)
    .describe('apply RMSNorm to the queries and keys of each head, before RoPE'),
}

const optimizerFields = {
  num_epochs: z
    .number()
    .positive()
    .default(10)
    .describe('passes over the training tokens')
    .meta(common),
  max_steps: count.optional().describe('number of updates; overrides num_epochs').meta(common),
  lr: rate.default(1e-4).describe('peak learning rate').meta(common),
  lr_min: rate.default(1e-5).describe('final learning rate'),
  warmup_ratio: fraction.default(0.1).describe('fraction of the updates spent on warm-up'),
  warmfix_ratio: fraction
    .default(0.9)
    .describe('fraction of the updates after which the learning rate stays at lr_min'),
  optimizer: z.enum(['adamw', 'sgd']).default('adamw').describe('update rule'),
  decay: z
    .enum(['all', 'matrices'])
    .default('all')
    .describe('parameters that weight decay applies to'),
  weight_decay: rate.default(0.01).describe('weight decay'),
  betas: z
    .array(z.number().min(0).lt(1))
    .length(2)
    .default([0.9, 0.95])
    .describe("decay rates of AdamW's two moments"),
  eps: rate.default(1e-8).describe("added to the square root of AdamW's second moment"),
  max_norm: rate.default(1).describe('clip the global gradient norm to this (0: no clipping)'),
  skip_spikes: z
    .number()
    .positive()
    .optional()
    .describe(
      'skip updates whose loss or gradient norm is more than this many standard deviations, such ' +
        'as 6, above the mean of the last 128 steps (default: skip none)',
    )
    .meta({ value: 'z' }),
  detect_anomaly: z
    .boolean()
    .default(false)
    .describe(
      'stop at the first op whose output is NaN or infinite, and name it in non-finite.json (slower)',
    ),
  freeze: z
    .array(z.string().min(1).meta({ value: 'pattern' }))
    .optional()
    .describe("parameters to exclude from training, by name: 'transformer_blocks.0.*' '*.g'"),
  seed: countOrZero.default(0).describe('seed of the weights, the batches and the samples'),
}

const runFields = {
  run: z
    .string()
    .optional()
    .describe('run folder (default: runs/<date-time>)')
    .meta(dir)
    .meta(common),
  resume: z
    .boolean()
    .default(false)
    .describe('resume the run in --run, with its saved options')
    .meta(common),
  checkpoint: z
    .string()
    .optional()
    .describe(
      'resume the run from this checkpoint, RUN/checkpoints/step-... or RUN/best; later ones are moved aside',
    )
    .meta(dir),
  stop_at_step: count
    .optional()
    .describe('save a checkpoint and stop at this update; the schedule stays the same'),
  save_interval: countOrZero
    .default(500)
    .describe('updates between checkpoints (0: only at the end)')
    .meta(common),
  keep: count
    .default(3)
    .describe(
      'number of newest checkpoints to keep, besides the one with the lowest validation loss',
    ),
  keep_every: countOrZero
    .default(0)
    .describe('also keep the checkpoints at multiples of this step (0: none)'),
}

const metricsFields = {
  log_interval: count.default(20).describe('updates between metrics lines'),
  eval_interval: countOrZero.default(500).describe('updates between evaluations (0: none)'),
  eval_tokens: count
    .default(262_144)
    .describe('maximum number of validation tokens per evaluation'),
  sample_interval: countOrZero.default(500).describe('updates between text samples (0: none)'),
  sample_prompt: z
    .string()
    .optional()
    .describe('prompt of the samples (default: the start of a document)'),
  log: z
    .enum(['tensorboard'])
    .optional()
    .describe('also write TensorBoard event files to RUN/tensorboard'),
}

const machineFields = {
  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d+)?)$/, 'must be auto, cpu, cuda or cuda:N')
    .default('auto')
    .describe('cpu, cuda or cuda:N (default: cuda if available, else cpu)')
    .meta({ value: 'device' })
    .meta(common),
  dtype: z
    .enum(['f32', 'bf16'])
    .default('f32')
    .describe('precision of the matrix multiplications')
    .meta(common),
  tf32: z
    .boolean()
    .default(false)
    .describe('on cuda, run f32 matrix multiplications in TensorFloat-32 (faster, less exact)'),
  threads: limits.threads
    .optional()
    .describe('threads of the CPU engine (default: the cores available to this process)')
    .meta(common),
  recompute: z
    .boolean()
    .default(false)
    .describe('save memory by recomputing activations in the backward pass'),
  peak_tflops: z
    .number()
    .positive()
    .optional()
    .describe(
      'peak speed of the device in TFLOP/s, from which the metrics get mfu (default: that of a known GPU)',
    ),
}

/** Sets the heading that the help shows these fields under. */
export function inGroup<F extends Record<string, z.ZodType>>(group: string, fields: F): F {
  const entries = Object.entries(fields).map(([name, field]) => [name, field.meta({ group })])
  return Object.fromEntries(entries) as F
}

/** Options that determine the model; without any of them, one is chosen for the corpus. */
export const SAYS_MODEL: readonly string[] = Object.keys(modelFields)

/** Every option of `kindling train`, by its name in the config file, in the groups of the help. */
export const trainFields = {
  ...inGroup('Data', dataFields),
  ...inGroup('Model', modelFields),
  ...inGroup('Optimization', optimizerFields),
  ...inGroup('Run', runFields),
  ...inGroup('Evaluation and metrics', metricsFields),
  ...inGroup('Machine', machineFields),
}
