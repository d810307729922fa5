/**
 * The tensor ops of the model as synchronous functions, for scripts, teaching and tests. Each takes
 * one object of typed arrays and sizes. They run the engine's own kernels and block the event loop,
 * so keep the arrays small.
 *
 * Arrays are row-major; leading dimensions are flattened into rows. A gradient is named `d` plus
 * the name of its tensor. Results are new arrays.
 *
 * All ops throw `KindlingError`: `ERR_INVALID_ARGUMENT` for a wrong type or size,
 * `ERR_SHAPE_MISMATCH` for an array whose length does not match the sizes, and
 * `ERR_TOKEN_OUT_OF_RANGE` for a token id or target outside the vocabulary.
 */
import { embedding, linear, matmul } from './ops/dense'
import { attention, rmsNorm, rope, silu, swiglu } from './ops/layers'
import { crossEntropy, logSoftmax, softmax } from './ops/loss'
import { adamw, clipGradNorm, sgd } from './ops/update'
import { withArguments } from './ops/check'

const all = {
  /** Product of two matrices. */
  matmul,
  /** Product with the transpose of a weight matrix, and an optional bias. */
  linear,
  /** Rows of a table by their ids. */
  embedding,
  /** Root mean square norm with a gain. */
  rmsNorm,
  /** Rotary position embedding on neighbouring pairs. */
  rope,
  /** Causal attention with query groups. */
  attention,
  /** x sigmoid(x). */
  silu,
  /** silu(gate) up. */
  swiglu,
  /** Softmax over the last dimension. */
  softmax,
  /** Logarithm of the softmax over the last dimension. */
  logSoftmax,
  /** Mean cross-entropy in nats. */
  crossEntropy,
  /** Scales gradients to a largest global L2 norm. */
  clipGradNorm,
  /** One update of AdamW. */
  adamw,
  /** One update of SGD. */
  sgd,
} as const

/** The tensor ops. */
export const ops = withArguments('ops', all)
