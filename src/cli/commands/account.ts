/** `kindling account`: what training a model needs. */
import { Command } from 'commander'
import { z } from 'zod'
import { account, type Account } from '../../account'
import { limits } from '../../limits'
import { parse } from '../../training/config'
import { COURSE_SHAPES, PRESETS } from '../../training/presets'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { accountText, courseText, type CourseColumn } from '../account-text'
import { run, usage, type Output } from '../output'

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
  qkv_bias: z
    .boolean()
    .default(false)
    .describe('add a bias to the query, key and value projections'),
  head_size: width.describe('width of each head (default: d_model / num_heads)'),
  qk_norm: z
    .boolean()
    .default(false)
    .describe('apply RMSNorm to the queries and keys of each head'),
  batch_size: batch.describe("sequences per step (default: the preset's, else 1)"),
  device: z.enum(['cpu', 'cuda']).default('cpu').describe('device whose memory use is computed'),
  dtype: z.enum(['f32', 'bf16']).default('f32').describe('precision of the matrix multiplications'),
  recompute: z.boolean().default(false).describe('recompute activations in the backward pass'),
  steps: z.int().min(1).default(400_000).describe('number of steps'),
  memory_gib: z.number().positive().default(80).describe('memory of the device in GiB'),
  peak_tflops: z.number().positive().default(19.5).describe('peak speed of the device in TFLOP/s'),
  mfu: z
    .number()
    .positive()
    .max(1)
    .default(0.5)
    .describe('fraction of the peak that training is assumed to reach'),
  tokens_per_second: z
    .number()
    .positive()
    .optional()
    .describe('measured training speed, to print its MFU'),
  course: z
    .boolean()
    .default(false)
    .describe("compare the course's GPT-2 shapes: shares of FLOPs, memory and largest batch"),
}

const EXAMPLES = [
  'kindling account --preset gpt2-xl --batch-size 1024 --steps 400000',
  'kindling account --preset gpt2-xl --context 16384',
  'kindling account --course',
  'kindling account --d-model 512 --num-heads 8 --d-ff 1344 --num-layers 6 --vocab-size 32000 --context 256',
]

export function accountCommand(): Command {
  const command = new Command('account').description(
    'compute the parameters, FLOPs, memory and training time of a model',
  )
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output) => {
      const { course, ...given } = parse(z.strictObject(fields), flags)
      if (course) compareShapes(given, output)
      else accountOne(given, output)
    }),
  )
}

type Given = Omit<z.output<z.ZodObject<typeof fields>>, 'course'>

const NEEDED = ['d_model', 'num_heads', 'd_ff', 'num_layers', 'vocab_size', 'context'] as const

function accountOne(given: Given, output: Output): void {
  const { preset } = given
  const shape = preset === undefined ? {} : SHAPES[preset]!
  const values = { ...given, ...shape, ...defined(given) }
  const missing = NEEDED.filter((name) => values[name] === undefined)
  if (missing.length > 0) throw usage(`give --preset, or ${missing.map(flag).join(', ')}`)
  const result = accountOf(values)
  output.line(result)
  const { context, batch_size = 1, dtype, device, memory_gib: memoryGib, steps } = values
  const name = `${preset ?? 'model'}, context ${context}, batch ${batch_size}, ${dtype} on ${device}`
  output.text(accountText(result, { name, memoryGib, steps }))
}

/** Contexts in the course's questions. The long one applies to the largest shape only. */
const [CONTEXT, LONG_CONTEXT] = [1024, 16_384]

function compareShapes(given: Given, output: Output): void {
  const names = Object.keys(COURSE_SHAPES)
  const asked = [
    ...names.map((name) => ({ name, context: CONTEXT })),
    { name: names.at(-1)!, context: LONG_CONTEXT },
  ]
  const columns = asked.map(({ name, context }): CourseColumn => {
    const shape = { ...COURSE_SHAPES[name]!, context }
    return { name, context, result: accountOf({ ...given, ...shape }) }
  })
  for (const { name, context, result } of columns) output.line({ preset: name, context, ...result })
  output.text(courseText(columns))
}

function accountOf(values: Given): Account {
  return account({
    vocabSize: values.vocab_size!,
    dModel: values.d_model!,
    numHeads: values.num_heads!,
    numKvHeads: values.num_kv_heads ?? values.num_heads!,
    dFf: values.d_ff!,
    numLayers: values.num_layers!,
    context: values.context!,
    tieEmbeddings: values.tie_embeddings,
    qkvBias: values.qkv_bias,
    qkNorm: values.qk_norm,
    ...(values.head_size !== undefined && { headSize: values.head_size }),
    batchSize: values.batch_size ?? 1,
    device: values.device,
    dtype: values.dtype,
    recompute: values.recompute,
    steps: values.steps,
    memoryGib: values.memory_gib,
    peakTflops: values.peak_tflops,
    mfu: values.mfu,
    ...(values.tokens_per_second !== undefined && { tokensPerSecond: values.tokens_per_second }),
  })
}

function defined(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined))
}

function flag(name: string): string {
  return `--${name.replaceAll('_', '-')}`
}
