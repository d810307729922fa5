/** The end of a step: gradient clipping, AdamW, SGD. Results are new arrays. */
import { KindlingError, call } from '../errors'
import { native } from '../native'
import { finite, floats, integer, pair } from './check'

/**
 * Clips gradients by their global L2 norm: if it exceeds `maxNorm`, all gradients are multiplied by
 * maxNorm / (norm + 1e-6). A `maxNorm` of 0 disables clipping.
 *
 * gradients: any number of arrays of any length -> the norm before clipping, the gradients after
 * it.
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

/** Arguments of one AdamW update. All arrays have the same length. */
export interface AdamwStep {
  param: Float32Array
  grad: Float32Array
  /** First moment, zero before the first update. */
  m: Float32Array
  /** Second moment, zero before the first update. */
  v: Float32Array
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
 * AdamW, where [b1, b2] are the betas, and a = lr sqrt(1 - b2^step) / (1 - b1^step):
 * m <- b1 m + (1 - b1) grad; v <- b2 v + (1 - b2) grad^2;
 * param <- param - a m / (sqrt(v) + eps) - lr weightDecay param.
 */
export function adamw(args: AdamwStep): { param: Float32Array; m: Float32Array; v: Float32Array } {
  const op = 'adamw'
  const tensors = [
    floats(op, 'param', args.param),
    floats(op, 'grad', args.grad),
    floats(op, 'm', args.m),
    floats(op, 'v', args.v),
  ] as const
  const [beta1, beta2] = pair(op, 'betas', args.betas ?? [0.9, 0.95])
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

/** Arguments of one SGD update. All arrays have the same length. */
export interface SgdStep {
  param: Float32Array
  grad: Float32Array
  lr: number
  /** Number of this update, from 0. */
  step: number
  /** Default 0. */
  weightDecay?: number
  /**
   * `sqrt` divides the learning rate by sqrt(step + 1), `none` keeps it constant. Default `sqrt`.
   */
  decay?: 'sqrt' | 'none'
}

/** SGD: param <- param - rate (grad + weightDecay param), with rate = lr / sqrt(step + 1) or lr. */
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
