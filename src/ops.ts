/**
 * Each tensor op of the model as a synchronous function of one object of typed arrays and sizes, for scripts,
 * teaching and tests. They run the engine's own kernels on the calling thread's time: keep the arrays small.
 *
 * Every array is row-major; any leading dimensions are flattened into rows. Gradients are named `d` + the forward name
 * and come back in new arrays. Errors: `ERR_INVALID_ARGUMENT` (a wrong kind or size), `ERR_SHAPE_MISMATCH`
 * (a length that does not fit the sizes), `ERR_TOKEN_OUT_OF_RANGE`.
 */
import { embedding, linear, matmul } from './ops/dense'
import { attention, rmsNorm, rope, silu, swiglu } from './ops/layers'
import { crossEntropy, logSoftmax, softmax } from './ops/loss'
import { adamw, clipGradNorm, sgd } from './ops/update'

/** The tensor ops. */
export const ops = {
  matmul,
  linear,
  embedding,
  rmsNorm,
  rope,
  attention,
  silu,
  swiglu,
  softmax,
  logSoftmax,
  crossEntropy,
  clipGradNorm,
  adamw,
  sgd,
} as const
