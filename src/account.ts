/**
 * Accounting of a model on paper: parameters, FLOPs by component, memory, the largest batch, training time.
 * A product of (m, k) and (k, n) is 2 m k n FLOPs; the backward pass costs twice the forward; AdamW 17 FLOPs a parameter.
 * Memory is what this engine holds, on the CPU in f32. Rotary tables and masks are no parameters.
 */
import { cudaBytes, type DeviceBytes } from './account-cuda'
import { KindlingError } from './errors'

/** Sizes to account for. */
export interface AccountOptions {
  vocabSize: number
  dModel: number
  numHeads: number
  /** Default numHeads. */
  numKvHeads?: number
  dFf: number
  numLayers: number
  /** Tokens of a sequence. */
  context: number
  /** Default false. */
  tieEmbeddings?: boolean
  /** Default false. */
  qkvBias?: boolean
  /** Whose memory. Default `cpu`, in f32 with all that the blocks keep, whatever `dtype` and `recompute` say. */
  device?: 'cpu' | 'cuda'
  /** Arithmetic on cuda. Default `f32`. */
  dtype?: 'f32' | 'bf16'
  /** On cuda, only the streams between the blocks are kept. Default false. */
  recompute?: boolean
  /** Sequences a step. Default 1. */
  batchSize?: number
  /** Updates. Default 400000. */
  steps?: number
  /** Memory of the device. Default 80. */
  memoryGib?: number
  /** Peak of the device in TFLOP/s. Default 19.5. */
  peakTflops?: number
  /** Share of the peak that is reached. Default 0.5. */
  mfu?: number
}

/** What a model needs. */
export interface Account {
  params: Record<'embedding' | 'attention' | 'feed_forward' | 'norms' | 'output' | 'total', number>
  /** Forward by component for one sequence, attention over every pair of positions; then whole passes. */
  flops: Record<
    | 'attention_projections'
    | 'attention_scores'
    | 'feed_forward'
    | 'output'
    | 'forward'
    | 'backward'
    | 'optimizer'
    | 'step'
    | 'per_token',
    number
  >
  /** Bytes for the batch. */
  memory: Record<
    'parameters' | 'gradients' | 'optimizer' | 'activations' | 'activations_per_sequence' | 'total',
    number
  >
  /** Most sequences that fit into the memory; 0 where not even one does. */
  largest_batch: number
  /** Seconds of all steps at the given share of the peak. */
  training_seconds: number
}

const BYTES = 4
/** Multiplications, additions, divisions and roots of AdamW for one parameter. */
const ADAMW_FLOPS = 17

/**
 * FLOPs of training on one token: 6 x (numLayers (4 d^2 + 3 d dFf) + d vocab) + 6 x numLayers x context x d, causal
 * attention counted half. MFU is tokens/s times this over the peak.
 */
export function flopsPerToken(
  o: Pick<AccountOptions, 'vocabSize' | 'dModel' | 'dFf' | 'numLayers' | 'context'>,
): number {
  const d = o.dModel
  return (
    6 * (o.numLayers * (4 * d * d + 3 * d * o.dFf) + d * o.vocabSize) +
    6 * o.numLayers * o.context * d
  )
}

/**
 * The account of a model.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` for a size that is no positive number.
 */
export function account(options: AccountOptions): Account {
  const o = {
    numKvHeads: options.numHeads,
    batchSize: 1,
    steps: 400_000,
    memoryGib: 80,
    peakTflops: 19.5,
    mfu: 0.5,
    ...options,
  }
  for (const [name, value] of Object.entries(o)) {
    if (typeof value === 'number' && !(value > 0 && Number.isFinite(value))) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        `${name} is ${value}; it must be a positive number`,
      )
    }
  }
  const params = parameters(o)
  const flops = flopsOf(o, params.total)
  const bytes = o.device === 'cuda' ? cudaBytes(o, params.total) : cpuBytes(o, params.total)
  const { sequence, activations } = bytes
  const state = 3 * BYTES * params.total
  const fixed = bytes.parameters + state + activations - sequence * o.batchSize
  const room = o.memoryGib * 1024 ** 3 - fixed
  return {
    params,
    flops,
    memory: {
      parameters: bytes.parameters,
      gradients: BYTES * params.total,
      optimizer: 2 * BYTES * params.total,
      activations,
      activations_per_sequence: sequence,
      total: bytes.parameters + state + activations,
    },
    largest_batch: Math.max(0, Math.floor(room / sequence)),
    training_seconds: (flops.step * o.steps) / (o.peakTflops * 1e12 * o.mfu),
  }
}

type Sizes = AccountOptions & { numKvHeads: number; batchSize: number }

function parameters(o: Sizes): Account['params'] {
  const d = o.dModel
  const kv = (o.numKvHeads * d) / o.numHeads
  const bias = o.qkvBias === true ? d + 2 * kv : 0
  const embedding = o.vocabSize * d
  const attention = o.numLayers * (2 * d * d + 2 * d * kv + bias)
  const feed_forward = o.numLayers * 3 * d * o.dFf
  const norms = (2 * o.numLayers + 1) * d
  const output = o.tieEmbeddings === true ? 0 : d * o.vocabSize
  return {
    embedding,
    attention,
    feed_forward,
    norms,
    output,
    total: embedding + attention + feed_forward + norms + output,
  }
}

function flopsOf(o: Sizes, total: number): Account['flops'] {
  const { dModel: d, context: t, numLayers } = o
  const kv = (o.numKvHeads * d) / o.numHeads
  const attention_projections = numLayers * 2 * t * (2 * d * d + 2 * d * kv)
  const attention_scores = numLayers * 4 * t * t * d
  const feed_forward = numLayers * 6 * t * d * o.dFf
  const output = 2 * t * d * o.vocabSize
  const forward = attention_projections + attention_scores + feed_forward + output
  const optimizer = ADAMW_FLOPS * total
  return {
    attention_projections,
    attention_scores,
    feed_forward,
    output,
    forward,
    backward: 2 * forward,
    optimizer,
    step: 3 * forward * o.batchSize + optimizer,
    per_token: flopsPerToken(o),
  }
}

function cpuBytes(o: Sizes, params: number): DeviceBytes {
  const sequence = activationBytes(o)
  return { parameters: BYTES * params, sequence, activations: sequence * o.batchSize }
}

/** Bytes that one sequence adds: what each block keeps, and the gradients that the blocks share. */
function activationBytes(o: Sizes): number {
  const { dModel: d, dFf: f, numHeads } = o
  const qkv = d + (2 * o.numKvHeads * d) / numHeads
  const block = 5 * d + qkv + 3 * f + numHeads + 2
  const shared = 3 * d + 1 + 4 * d + qkv + 3 * f
  return BYTES * o.context * (o.numLayers * block + shared)
}
