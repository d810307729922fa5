/**
 * Device memory of training on CUDA, by what the engine allocates (crates/kindling-core/src/model/activations.rs and
 * crates/kindling-core/src/ops/output_loss/cuda.rs): f32 throughout, or bf16 for what lies between two products.
 */
import type { AccountOptions } from './account'

const F32 = 4
/** Scores of the output layer are made for a block of rows of about this size. */
const BLOCK_BYTES = 512 * 2 ** 20
const ROW_MULTIPLE = 128
/** Blocks of the kernel that sums a norm's gradient, at most. */
const NORM_BLOCKS = 2 * 132

type Sizes = AccountOptions & { numKvHeads: number; batchSize: number }

/** Bytes of a device. */
export interface DeviceBytes {
  /** Weights, and in bf16 their copy that products read. */
  parameters: number
  /** Activations of one more sequence. */
  sequence: number
  /** Activations of the batch, the block of scores and what ops need for themselves. */
  activations: number
}

/** What training with AdamW allocates, but for gradients and moments, which are f32 as on the CPU. */
export function cudaBytes(o: Sizes, params: number): DeviceBytes {
  const operand = o.dtype === 'bf16' ? 2 : F32
  const sequence = o.context * rowBytes(o, operand)
  const rows = o.batchSize * o.context
  const height = blockRows(rows, o.vocabSize, operand)
  const scores = height * (o.vocabSize * operand + F32)
  const rotations = 2 * F32 * o.context * (o.dModel / o.numHeads)
  const scratch = Math.max(F32 * o.numHeads * rows, F32 * NORM_BLOCKS * o.dModel)
  return {
    parameters: params * (F32 + (operand < F32 ? operand : 0)),
    sequence,
    activations: o.batchSize * sequence + scores + rotations + scratch,
  }
}

/** Bytes of one position: the streams, what the blocks keep, what they share, the loss and its target. */
function rowBytes(o: Sizes, operand: number): number {
  const { dModel: d, dFf: f, numHeads, numLayers } = o
  const qkv = d + (2 * o.numKvHeads * d) / numHeads
  const stream = F32 * (d + 1)
  const block = operand * (qkv + d + 2 * f) + F32 * (numHeads + d + 1)
  const shared = operand * (2 * d + f)
  const gradients = F32 * d + (operand < F32 ? operand * d : 0) + operand * qkv
  const blocks = o.recompute === true ? 1 : numLayers
  return (numLayers + 1) * stream + blocks * block + shared + gradients + 2 * F32
}

/** Rows of a block of scores, all but the last of the same height. */
function blockRows(rows: number, vocabSize: number, operand: number): number {
  const most = Math.max(ROW_MULTIPLE, Math.floor(BLOCK_BYTES / (vocabSize * operand)))
  const height = Math.ceil(rows / Math.ceil(rows / most))
  return Math.min(rows, Math.ceil(height / ROW_MULTIPLE) * ROW_MULTIPLE)
}
