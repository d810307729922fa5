/** `kindling account`: what training a model needs. */
import { Command } from 'commander'
import { z } from 'zod'
import { account, type Account } from '../../account'
import { toSnakeCase } from '../../case'
import { limits } from '../../limits'
import { parse } from '../../training/config'
import { COURSE_SHAPES, PRESETS } from '../../training/presets'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { count, duration } from '../../format'
import { run, usage } from '../output'

const SHAPES = { ...PRESETS, ...COURSE_SHAPES }
const width = limits.width.optional()
const batch = z
  .int()
  .min(1)
  .max(2 ** 40)
  .optional()

const fields = {
  preset: z
    .enum(Object.keys(SHAPES) as [string, ...string[]])
    .optional()
    .describe(`sizes by name: ${Object.keys(SHAPES).join(', ')}`),
  d_model: width.describe('width of the residual stream'),
  num_heads: width.describe('attention heads'),
  num_kv_heads: width.describe('key/value heads (default: num_heads)'),
  d_ff: width.describe('width of the feed-forward layer'),
  num_layers: limits.layers.optional().describe('number of blocks'),
  vocab_size: limits.vocab.optional().describe('tokens in the vocabulary'),
  context: limits.positions.optional().describe('tokens per sequence'),
  tie_embeddings: z
    .boolean()
    .default(false)
    .describe('use the embedding matrix as the output layer'),
  qkv_bias: z.boolean().default(false).describe('give the query, key and value projections a bias'),
  head_size: width.describe('width of a head (default: d_model / num_heads)'),
  qk_norm: z.boolean().default(false).describe('norm each query and key over its head'),
  batch_size: batch.describe("sequences per step (default: the preset's, else 1)"),
  device: z.enum(['cpu', 'cuda']).default('cpu').describe('device whose memory is planned'),
  dtype: z.enum(['f32', 'bf16']).default('f32').describe('dtype of matrix products'),
  recompute: z
    .boolean()
    .default(false)
    .describe('recompute the activations of blocks in the backward pass'),
  steps: z.int().min(1).default(400_000).describe('number of steps'),
  memory_gib: z.number().positive().default(80).describe('memory of the device in GiB'),
  peak_tflops: z.number().positive().default(19.5).describe('peak of the device in TFLOP/s'),
  mfu: z
    .number()
    .positive()
    .max(1)
    .default(0.5)
    .describe('fraction of the peak that training reaches'),
}

const EXAMPLES = [
  'kindling account --preset gpt2-xl --batch-size 1024 --steps 400000',
  'kindling account --d-model 512 --num-heads 8 --d-ff 1344 --num-layers 6 --vocab-size 32000 --context 256',
]

export function accountCommand(): Command {
  const command = new Command('account').description(
    'parameters, FLOPs, memory and training time of a model',
  )
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output) => {
      const { preset, ...given } = parse(z.strictObject(fields), flags)
      const shape = { ...(preset === undefined ? {} : SHAPES[preset]), ...defined(given) }
      const needed = [
        'd_model',
        'num_heads',
        'd_ff',
        'num_layers',
        'vocab_size',
        'context',
      ] as const
      const values = shape as typeof given
      const missing = needed.filter((name) => values[name] === undefined)
      if (missing.length > 0) throw usage(`give --preset, or ${missing.map(flag).join(', ')}`)
      const result = account({
        vocabSize: values.vocab_size!,
        dModel: values.d_model!,
        numHeads: values.num_heads!,
        numKvHeads: values.num_kv_heads ?? values.num_heads!,
        dFf: values.d_ff!,
        numLayers: values.num_layers!,
        context: values.context!,
        tieEmbeddings: given.tie_embeddings,
        qkvBias: given.qkv_bias,
        qkNorm: given.qk_norm,
        ...(given.head_size !== undefined && { headSize: given.head_size }),
        batchSize: values.batch_size ?? 1,
        device: given.device,
        dtype: given.dtype,
        recompute: given.recompute,
        steps: given.steps,
        memoryGib: given.memory_gib,
        peakTflops: given.peak_tflops,
        mfu: given.mfu,
      })
      output.line(toSnakeCase(result))
      output.text(table(result, given.memory_gib, given.steps))
    }),
  )
}

function defined(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined))
}

function flag(name: string): string {
  return `--${name.replaceAll('_', '-')}`
}

function table(result: Account, memoryGib: number, steps: number): string {
  // The rows have the names of the JSON output.
  const { params, flops, memory, largest_batch, training_seconds } = toSnakeCase(result)
  const row = (name: string, value: string, share = ''): string =>
    `  ${name.padEnd(26)}${value.padStart(12)}${share.padStart(9)}`
  const part = (value: number, whole: number): string => `${((100 * value) / whole).toFixed(1)}%`
  const names = (record: object): [string, number][] => Object.entries(record) as [string, number][]
  const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(3)} GiB`
  const components = [
    'attention_projections',
    'attention_scores',
    'feed_forward',
    'output',
  ] as const
  return [
    'parameters',
    ...names(params).map(([name, n]) => row(name, count(n), part(n, params.total))),
    row('exact', params.total.toLocaleString('en')),
    'FLOPs of the forward pass on one sequence',
    ...components.map((name) => row(name, count(flops[name]), part(flops[name], flops.forward))),
    row('forward', count(flops.forward)),
    row('step (batch and optimizer)', count(flops.step)),
    row('optimizer', count(flops.optimizer)),
    row('per token (causal)', count(flops.per_token)),
    'memory',
    ...names(memory).map(([name, bytes]) => row(name, gib(bytes))),
    row(`largest batch in ${memoryGib} GiB`, String(largest_batch)),
    `training time of ${steps} steps: ${duration(training_seconds)} (${(training_seconds / 86_400).toFixed(1)} days)`,
  ].join('\n')
}
