/**
 * What happens to gradients and parameters at the end of a step: clipping, AdamW, SGD.
 * These return new arrays and leave their inputs as they are.
 */
import { KindlingError, call } from '../errors'
import { native } from '../native'
import { finite, floats, integer } from './check'

/**
 * The global L2 norm over all gradients; above `maxNorm`, every gradient is scaled by maxNorm / (norm + 1e-6).
 * gradients: any number of arrays of any length -> norm before clipping, and the gradients after it.
 */
export function clipGradNorm(args: { gradients: readonly Float32Array[]; maxNorm: number }): {
  norm: number
  gradients: Float32Array[]
} {
  const op = 'clipGradNorm'
  if (!Array.isArray(args.gradients)) {
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      `${op}: gradients must be an array of Float32Array`,
    )
  }
  const gradients = args.gradients.map((gradient, i) => floats(op, `gradients[${i}]`, gradient))
  const maxNorm = finite(op, 'maxNorm', args.maxNorm, 0)
  const clipped = call(() => native.ops.clipGradNorm(gradients, maxNorm))
  return { norm: clipped.norm, gradients: clipped.gradients }
}

/** One AdamW update. */
export interface AdamwStep {
  /** Parameters. */
  param: Float32Array
  /** Their gradients. */
  grad: Float32Array
  /** First moment; zeros before the first update. */
  m: Float32Array
  /** Second moment; zeros before the first update. */
  v: Float32Array
  /** Learning rate. */
  lr: number
  /** Number of this update, from 1. */
  step: number
  /** Default [0.9, 0.95]. */
  betas?: readonly [number, number]
  /** Default 1e-8. */
  eps?: number
  /** Decoupled from the gradient. Default 0.01. */
  weightDecay?: number
}

/**
 * AdamW: m and v as usual; a = lr sqrt(1 - b2^step) / (1 - b1^step);
 * p <- p - a m / (sqrt v + eps) - lr weightDecay p_old. All arrays have the same length.
 */
export function adamw(args: AdamwStep): { param: Float32Array; m: Float32Array; v: Float32Array } {
  const op = 'adamw'
  const tensors = [
    floats(op, 'param', args.param),
    floats(op, 'grad', args.grad),
    floats(op, 'm', args.m),
    floats(op, 'v', args.v),
  ] as const
  const [beta1, beta2] = args.betas ?? [0.9, 0.95]
  const hyper = {
    lr: finite(op, 'lr', args.lr, 0),
    step: integer(op, 'step', args.step, 1),
    beta1: finite(op, 'betas[0]', beta1, 0),
    beta2: finite(op, 'betas[1]', beta2, 0),
    eps: finite(op, 'eps', args.eps ?? 1e-8, 0),
    weightDecay: finite(op, 'weightDecay', args.weightDecay ?? 0.01, 0),
  }
  const [param, m, v] = call(() => native.ops.adamw(...tensors, hyper))
  return { param, m, v }
}

/** One SGD update. */
export interface SgdStep {
  /** Parameters. */
  param: Float32Array
  /** Their gradients. */
  grad: Float32Array
  /** Learning rate. */
  lr: number
  /** Number of this update, from 0. */
  step: number
  /** Default 0. */
  weightDecay?: number
  /** `sqrt` divides the rate by sqrt(step + 1), `none` keeps it. Default `sqrt`. */
  decay?: 'sqrt' | 'none'
}

/** SGD: p <- p - lr / sqrt(step + 1) (g + weightDecay p). All arrays have the same length. */
export function sgd(args: SgdStep): { param: Float32Array } {
  const op = 'sgd'
  const param = floats(op, 'param', args.param)
  const grad = floats(op, 'grad', args.grad)
  const decay = args.decay ?? 'sqrt'
  if (decay !== 'sqrt' && decay !== 'none') {
    throw new KindlingError('ERR_INVALID_ARGUMENT', `${op}: decay must be 'sqrt' or 'none'`)
  }
  const hyper = {
    lr: finite(op, 'lr', args.lr, 0),
    step: integer(op, 'step', args.step, 0),
    weightDecay: finite(op, 'weightDecay', args.weightDecay ?? 0, 0),
    constant: decay === 'none',
  }
  return { param: call(() => native.ops.sgd(param, grad, hyper)) }
}
