/**
 * Optimizers clip a model's gradients and update its weights in place, in native memory. The caller
 * passes the learning rate of each update (`step({ lr })`), so a schedule is a plain function.
 */
import { z } from 'zod'
import { KindlingError, call, settle } from './errors'
import { native, type Native } from './native'
import { checked, isObject, withoutUndefined } from './options'
import { Transformer } from './transformer'

/** Settings of one parameter group; whatever it leaves out is inherited from the optimizer. */
export interface AdamWGroup {
  /**
   * Pattern of parameter names, in which `*` matches any characters: `*.g`,
   * `transformer_blocks.0.*`. `matrices` matches every matrix. The first matching group applies. A
   * pattern without a match makes the first call fail.
   */
  pattern: string
  /** Learning rate, in place of the one passed to `step`. */
  lr?: number
  /** Decay rates of the two moments. */
  betas?: readonly [number, number]
  /** Added to the square root of the second moment. */
  eps?: number
  /** Decoupled weight decay. */
  weightDecay?: number
}

/** Options of AdamW. */
export interface AdamWOptions {
  /** Learning rate used when `step()` is called without one. Default 1e-4. */
  lr?: number
  /** Decay rates of the two moments, each at least 0 and below 1. Default [0.9, 0.95]. */
  betas?: readonly [number, number]
  /** Added to the square root of the second moment. Default 1e-8. */
  eps?: number
  /** Decoupled weight decay. Default 0.01. */
  weightDecay?: number
  /** Parameter groups. Default none. */
  groups?: readonly AdamWGroup[]
}

/** Settings of one parameter group; whatever it leaves out is inherited from the optimizer. */
export interface SgdGroup {
  /** Pattern of parameter names, as in `AdamWGroup`. */
  pattern: string
  /** Learning rate, in place of the one passed to `step`. */
  lr?: number
  /** Weight decay, coupled to the learning rate. */
  weightDecay?: number
}

/** Options of SGD. */
export interface SgdOptions {
  /** Learning rate used when `step()` is called without one. Default 1e-4. */
  lr?: number
  /** Weight decay, coupled to the learning rate. Default 0. */
  weightDecay?: number
  /**
   * Decay of the learning rate: `sqrt` divides it by sqrt(t + 1) in update t = 0, 1, ...; `none`
   * keeps it. Default `sqrt`.
   */
  decay?: 'sqrt' | 'none'
  /** Parameter groups. Default none. */
  groups?: readonly SgdGroup[]
}

const rate = z.number().min(0)
const betas = z.tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
const groupFields = {
  pattern: z.string().min(1),
  lr: rate.optional(),
  weightDecay: rate.optional(),
}
const adamwSchema = z.strictObject({
  lr: rate.default(1e-4),
  betas: betas.default([0.9, 0.95]),
  eps: rate.default(1e-8),
  weightDecay: rate.default(0.01),
  groups: z
    .array(z.strictObject({ ...groupFields, betas: betas.optional(), eps: rate.optional() }))
    .default([]),
})
const sgdSchema = z.strictObject({
  lr: rate.default(1e-4),
  weightDecay: rate.default(0),
  decay: z.enum(['sqrt', 'none']).default('sqrt'),
  groups: z.array(z.strictObject(groupFields)).default([]),
})
const clipSchema = z.strictObject({ read: z.boolean().default(true) })
const stepSchema = z.strictObject({ lr: rate.optional() })

/**
 * Base class of AdamW and SGD. A model and its optimizer run one call at a time; a second call
 * fails with `ERR_BUSY`.
 */
export abstract class Optimizer {
  readonly #native: Native.Optimizer

  /** @internal */
  protected constructor(handle: Native.Optimizer) {
    this.#native = handle
  }

  /**
   * Scales the gradients by maxNorm / (norm + 1e-6) if their global L2 norm exceeds `maxNorm`. 0
   * does not clip.
   *
   * @returns the norm before clipping. With `read: false`, the call does not wait for the device,
   * and the result is null.
   * @throws KindlingError `ERR_NON_FINITE` if the norm is NaN or infinite; the gradients are then
   * unchanged.
   */
  async clipGradNorm(maxNorm: number, options: { read: false }): Promise<null>
  async clipGradNorm(maxNorm: number, options?: { read?: true }): Promise<number>
  async clipGradNorm(maxNorm: number, options?: { read?: boolean }): Promise<number | null>
  async clipGradNorm(maxNorm: number, options: { read?: boolean } = {}): Promise<number | null> {
    const { read } = checked('clipGradNorm', clipSchema, options)
    return settle(() => this.#native.clipGradNorm(maxNorm, read))
  }

  /**
   * Updates the weights and sets the gradients to zero.
   *
   * @param options - `lr`: learning rate of this update (default: the optimizer's).
   * @throws KindlingError `ERR_NON_FINITE` if a gradient is NaN or infinite; the weights are then
   * unchanged.
   */
  async step(options: { lr?: number } = {}): Promise<void> {
    const { lr } = checked('step', stepSchema, options)
    await settle(() => this.#native.step(lr))
  }

  /**
   * Frees the optimizer's state, at once or when the pending call settles. Does not wait for that
   * call.
   */
  async close(): Promise<void> {
    call(() => this.#native.close())
  }

  /** Closes the optimizer at the end of the block: `await using optimizer = new AdamW(...)`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** @internal Checks that an optimizer updates a model. */
  static checkModel(optimizer: Optimizer, model: Transformer): void {
    const handle = Optimizer.toNative(optimizer)
    call(() => handle.checkModel(Transformer.toNative(model)))
  }

  /** @internal */
  static toNative(optimizer: Optimizer): Native.Optimizer {
    if (isObject(optimizer) && #native in optimizer) return optimizer.#native
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'expected an optimizer: AdamW or Sgd')
  }
}

/**
 * AdamW (arXiv 1711.05101) with the bias correction folded into the learning rate. In update t = 1,
 * 2, ...: p <- p - a m / (sqrt(v) + eps) - lr weightDecay p, where a = lr sqrt(1 - beta2^t) / (1 -
 * beta1^t).
 */
export class AdamW extends Optimizer {
  /** @throws KindlingError `ERR_INVALID_ARGUMENT` if an option is out of range. */
  constructor(model: Transformer, options: AdamWOptions = {}) {
    const handle = Transformer.toNative(model)
    const { groups, ...values } = checked('AdamW', adamwSchema, options)
    const settings = { ...values, groups: groups.map(withoutUndefined) }
    super(call(() => native.Optimizer.adamw(handle, settings)))
  }
}

/**
 * Stochastic gradient descent. In update t = 0, 1, ...: p <- p - lr / sqrt(t + 1) (g + weightDecay
 * p).
 */
export class Sgd extends Optimizer {
  /** @throws KindlingError `ERR_INVALID_ARGUMENT` if an option is out of range. */
  constructor(model: Transformer, options: SgdOptions = {}) {
    const handle = Transformer.toNative(model)
    const { groups, decay, ...values } = checked('Sgd', sgdSchema, options)
    const constant = decay === 'none'
    const settings = { ...values, constant, groups: groups.map(withoutUndefined) }
    super(call(() => native.Optimizer.sgd(handle, settings)))
  }
}
