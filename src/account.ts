/**
 * Requirements of training a model: parameters, FLOPs by component, memory, the largest batch, and
 * time.
 *
 * A product of (m, k) and (k, n) is 2 m k n FLOPs, the backward pass costs twice the forward pass,
 * and AdamW 17 FLOPs per parameter. The engine computes the memory itself, with the code that
 * allocates it.
 */
import { z } from 'zod'
import { courseActivations, widths, type CourseMemory } from './course-memory'
import { call } from './errors'
import { limits } from './limits'
import { native } from './native'
import { checked } from './options'

/** Options of `account`: a model, how it is trained, and on which device. */
export interface AccountOptions {
  /** Tokens in the vocabulary. */
  vocabSize: number
  /** Width of the residual stream. */
  dModel: number
  /** Query heads. */
  numHeads: number
  /** Key/value heads. Default numHeads. */
  numKvHeads?: number
  /** Width of the feed-forward layer. */
  dFf: number
  /** Transformer blocks. */
  numLayers: number
  /** Tokens per sequence. */
  context: number
  /** The output layer uses the embedding matrix. Default false. */
  tieEmbeddings?: boolean
  /** The query, key and value projections have a bias. Default false. */
  qkvBias?: boolean
  /** Width of each head. Default dModel / numHeads. */
  headSize?: number
  /** RMSNorm of the queries and keys of each head. Default false. */
  qkNorm?: boolean
  /** Device whose memory use is computed; this machine need not have it. Default `cpu`. */
  device?: 'cpu' | 'cuda'
  /**
   * Dtype of matrix products, as in `TransformerOptions`; on the CPU, as this machine supports it.
   * Default `f32`.
   */
  dtype?: 'f32' | 'bf16'
  /** Recompute the activations of blocks in the backward pass. Default false. */
  recompute?: boolean
  /** Sequences per step. Default 1. */
  batchSize?: number
  /** Number of steps. Default 400000. */
  steps?: number
  /** Memory of the device in GiB. Default 80. */
  memoryGib?: number
  /** Peak speed of the device in TFLOP/s. Default 19.5. */
  peakTflops?: number
  /** Model FLOPs utilization: the fraction of the peak that training reaches. Default 0.5. */
  mfu?: number
  /** Measured speed of training in tokens/s; `mfu` and the time then follow from it. */
  tokensPerSecond?: number
}

/** Requirements of training a model. */
export interface Account {
  /** Numbers of parameters. */
  params: Record<'embedding' | 'attention' | 'feedForward' | 'norms' | 'output' | 'total', number>
  /**
   * FLOPs of the forward pass on one sequence by component, with attention over all pairs of
   * positions; then totals.
   */
  flops: Record<
    | 'attentionProjections'
    | 'attentionScores'
    | 'feedForward'
    | 'output'
    | 'forward'
    | 'backward'
    | 'optimizer'
    | 'step'
    | 'perToken',
    number
  >
  /**
   * Bytes. `activations` are those of the batch, with a block of logits and scratch memory;
   * `activationsPerSequence` is what one more sequence adds.
   */
  memory: Record<
    'parameters' | 'gradients' | 'optimizer' | 'activations' | 'activationsPerSequence' | 'total',
    number
  >
  /** Largest number of sequences per step that fits into memory; 0 if not even one fits. */
  largestBatch: number
  /** Bytes by the course's formula, in f32: every intermediate result of every layer is kept. */
  courseMemory: CourseMemory
  /** Largest number of sequences per step that fits into memory by the course's formula. */
  courseLargestBatch: number
  /** Model FLOPs utilization: the given one, or that of the measured speed. */
  mfu: number
  /** Speed of training in tokens/s: the measured one, or that at the given utilization. */
  tokensPerSecond: number
  /** Seconds for all steps at that speed. */
  trainingSeconds: number
}

const positive = z.number().positive()
const schema = z.strictObject({
  vocabSize: limits.vocab,
  dModel: limits.width,
  numHeads: limits.width,
  numKvHeads: limits.width.optional(),
  dFf: limits.width,
  numLayers: limits.layers,
  context: limits.positions,
  tieEmbeddings: z.boolean().default(false),
  qkvBias: z.boolean().default(false),
  headSize: limits.width.optional(),
  qkNorm: z.boolean().default(false),
  device: z.enum(['cpu', 'cuda']).default('cpu'),
  dtype: z.enum(['f32', 'bf16']).default('f32'),
  recompute: z.boolean().default(false),
  batchSize: z
    .int()
    .min(1)
    .max(2 ** 40)
    .default(1),
  steps: positive.default(400_000),
  memoryGib: positive.default(80),
  peakTflops: positive.default(19.5),
  mfu: positive.default(0.5),
  tokensPerSecond: positive.optional(),
})

/** Of a whole model's options, what counts; no limits, for these are only numbers. */
const flopsSchema = z.object({
  vocabSize: positive,
  dModel: positive,
  numHeads: positive.optional(),
  numKvHeads: positive.optional(),
  headSize: positive.optional(),
  dFf: positive,
  numLayers: positive,
  context: positive,
})

/** Multiplications, additions, divisions and square roots of AdamW per parameter. */
const ADAMW_FLOPS = 17
const BYTES_F32 = 4

/** The sizes that `flopsPerToken` uses. */
type SizesOfFlops = Pick<AccountOptions, 'vocabSize' | 'dModel' | 'dFf' | 'numLayers' | 'context'> &
  Partial<Pick<AccountOptions, 'numHeads' | 'numKvHeads' | 'headSize'>>

/**
 * Returns the FLOPs of training on one token: 6 (numLayers (4 d^2 + 3 d dFf) + d vocabSize) + 6
 * numLayers context d. Causal attention counts half of the pairs. MFU is this times tokens/s over
 * the peak.
 *
 * With numHeads given, 2 d (q + kv) takes the place of 4 d^2, and q that of d in the last term: q
 * and kv are the widths of all query heads and of all key heads.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` if a size is not a positive number.
 */
export function flopsPerToken(sizes: SizesOfFlops): number {
  const o = checked('flopsPerToken', flopsSchema, sizes)
  const d = o.dModel
  const { q, kv } =
    o.numHeads === undefined ? { q: d, kv: d } : widths({ ...o, numHeads: o.numHeads })
  return (
    6 * (o.numLayers * (2 * d * (q + kv) + 3 * d * o.dFf) + d * o.vocabSize) +
    6 * o.numLayers * o.context * q
  )
}

/**
 * Accounts for the parameters, FLOPs, memory and time of training a model.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` if a size is not a positive number,
 * `ERR_INVALID_CONFIG` if no model can have these sizes.
 */
export function account(options: AccountOptions): Account {
  const given = checked('account', schema, options)
  const o = { ...given, numKvHeads: given.numKvHeads ?? given.numHeads }
  const params = parameters(o)
  const flops = flopsOf(o, params.total)
  const memoryBytes = o.memoryGib * 1024 ** 3
  const { largestBatch, ...memory } = call(() => native.planMemory({ ...o, memoryBytes }))
  return {
    params,
    flops,
    memory,
    largestBatch,
    ...courseMemoryOf(o, params.total, memoryBytes),
    ...timeOf(o, flops),
  }
}

/** Options with the defaults filled in. */
type Sizes = Omit<Required<AccountOptions>, 'headSize' | 'tokensPerSecond'> &
  Pick<AccountOptions, 'headSize' | 'tokensPerSecond'>

function courseMemoryOf(
  o: Sizes,
  numParameters: number,
  memoryBytes: number,
): Pick<Account, 'courseMemory' | 'courseLargestBatch'> {
  const parameters = BYTES_F32 * numParameters
  const activationsPerSequence = BYTES_F32 * courseActivations(o)
  const activations = o.batchSize * activationsPerSequence
  const [gradients, optimizer] = [parameters, 2 * parameters]
  const fixed = parameters + gradients + optimizer
  return {
    courseMemory: {
      ...{ parameters, gradients, optimizer, activations, activationsPerSequence },
      total: fixed + activations,
    },
    courseLargestBatch: Math.max(0, Math.floor((memoryBytes - fixed) / activationsPerSequence)),
  }
}

/**
 * Returns MFU, speed and time. MFU of a measured speed uses the FLOPs per token of MFU; an assumed
 * MFU gives a speed by all FLOPs of a step.
 */
function timeOf(
  o: Sizes,
  flops: Account['flops'],
): Pick<Account, 'mfu' | 'tokensPerSecond' | 'trainingSeconds'> {
  const peak = o.peakTflops * 1e12
  const tokens = o.batchSize * o.context
  if (o.tokensPerSecond === undefined) {
    const stepSeconds = flops.step / (peak * o.mfu)
    const tokensPerSecond = tokens / stepSeconds
    return { mfu: o.mfu, tokensPerSecond, trainingSeconds: stepSeconds * o.steps }
  }
  const { tokensPerSecond } = o
  const mfu = (flops.perToken * tokensPerSecond) / peak
  return { mfu, tokensPerSecond, trainingSeconds: (tokens * o.steps) / tokensPerSecond }
}

function parameters(o: Sizes): Account['params'] {
  const d = o.dModel
  const { headSize, q, kv } = widths(o)
  const vectors = (o.qkvBias ? q + 2 * kv : 0) + (o.qkNorm ? 2 * headSize : 0)
  const embedding = o.vocabSize * d
  const attention = o.numLayers * (2 * d * q + 2 * d * kv + vectors)
  const feedForward = o.numLayers * 3 * d * o.dFf
  const norms = (2 * o.numLayers + 1) * d
  const output = o.tieEmbeddings ? 0 : d * o.vocabSize
  return {
    embedding,
    attention,
    feedForward,
    norms,
    output,
    total: embedding + attention + feedForward + norms + output,
  }
}

function flopsOf(o: Sizes, total: number): Account['flops'] {
  const { dModel: d, context: t, numLayers } = o
  const { q, kv } = widths(o)
  const attentionProjections = numLayers * 2 * t * (2 * d * q + 2 * d * kv)
  const attentionScores = numLayers * 4 * t * t * q
  const feedForward = numLayers * 6 * t * d * o.dFf
  const output = 2 * t * d * o.vocabSize
  const forward = attentionProjections + attentionScores + feedForward + output
  const optimizer = ADAMW_FLOPS * total
  return {
    attentionProjections,
    attentionScores,
    feedForward,
    output,
    forward,
    backward: 2 * forward,
    optimizer,
    step: 3 * forward * o.batchSize + optimizer,
    perToken: flopsPerToken(o),
  }
}
