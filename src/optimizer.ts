/**
 * Optimizers: they clip a model's gradients and update its weights in place, in native memory.
 * The rate of each update is the caller's (`step({ lr })`), so a schedule stays a plain function.
 */
import { KindlingError, call, settle } from './errors'
import { native } from './native'
import { Transformer } from './transformer'

/** Settings of one group of parameters; what it leaves out it inherits. */
export interface AdamWGroup {
  /**
   * Parameter names, `*` standing for any characters: `*.g`, `transformer_blocks.0.*`; `matrices` is every matrix. The
   * first group that fits a name counts; one that fits none is an error of the first call.
   */
  pattern: string
  /** A rate of its own, which the rate of a step does not change. Default: the step's. */
  lr?: number
  betas?: readonly [number, number]
  eps?: number
  weightDecay?: number
}

/** Settings of AdamW. */
export interface AdamWOptions {
  /** Rate of an update that is given none. Default 1e-4. */
  lr?: number
  /** Decay rates of the two moments. Default [0.9, 0.95]. */
  betas?: readonly [number, number]
  /** Added to the root of the second moment. Default 1e-8. */
  eps?: number
  /** Decoupled from the gradient. Default 0.01. */
  weightDecay?: number
  /** Parameters with settings of their own. */
  groups?: readonly AdamWGroup[]
}

/** Settings of one group of parameters; what it leaves out it inherits. */
export interface SgdGroup {
  /** As in `AdamWGroup`. */
  pattern: string
  /** A rate of its own, which the rate of a step does not change. Default: the step's. */
  lr?: number
  weightDecay?: number
}

/** Settings of SGD. */
export interface SgdOptions {
  /** Rate of an update that is given none. Default 1e-4. */
  lr?: number
  /** Default 0. */
  weightDecay?: number
  /** `sqrt` divides the rate of update t by sqrt(t + 1), t from 0; `none` keeps it. Default `sqrt`. */
  decay?: 'sqrt' | 'none'
  /** Parameters with settings of their own. */
  groups?: readonly SgdGroup[]
}

/** What AdamW and SGD share. One call at a time on a model and its optimizer (`ERR_BUSY`). */
export abstract class Optimizer {
  readonly #native: native.Optimizer

  /** @internal */
  protected constructor(handle: native.Optimizer) {
    this.#native = handle
  }

  /**
   * Scales the gradients so that their global L2 norm is at most `maxNorm`: above it, by maxNorm / (norm + 1e-6).
   *
   * @returns the norm before clipping, or null with `read: false`, which costs no device synchronisation.
   */
  async clipGradNorm(maxNorm: number, options: { read: false }): Promise<null>
  async clipGradNorm(maxNorm: number, options?: { read?: true }): Promise<number>
  async clipGradNorm(maxNorm: number, options?: { read?: boolean }): Promise<number | null>
  async clipGradNorm(maxNorm: number, options: { read?: boolean } = {}): Promise<number | null> {
    return settle(() => this.#native.clipGradNorm(maxNorm, options.read ?? true))
  }

  /**
   * Updates the weights with the gradients, and sets the gradients to zero.
   *
   * @param options - `lr`: the rate of this update (default: the optimizer's own).
   * @throws KindlingError `ERR_NON_FINITE` if a gradient is NaN or infinite; the weights are not changed then.
   */
  async step(options: { lr?: number } = {}): Promise<void> {
    await settle(() => this.#native.step(options.lr))
  }

  /** Frees the optimizer's state, at once or when the call under way has settled. */
  async close(): Promise<void> {
    call(() => this.#native.close())
  }

  /** `await using optimizer = new AdamW(...)` closes it at the end of the block. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** @internal */
  static toNative(optimizer: Optimizer): native.Optimizer {
    if (optimizer instanceof Optimizer) return optimizer.#native
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'this takes an optimizer: AdamW or Sgd')
  }
}

/**
 * AdamW with the bias correction folded into the rate: a = lr sqrt(1 - b2^t) / (1 - b1^t);
 * p <- p - a m / (sqrt v + eps) - lr weightDecay p_old. Source: arXiv 1711.05101.
 */
export class AdamW extends Optimizer {
  /** @throws KindlingError `ERR_INVALID_ARGUMENT` for a setting out of its range. */
  constructor(model: Transformer, options: AdamWOptions = {}) {
    const handle = Transformer.toNative(model)
    const {
      lr = 1e-4,
      betas = [0.9, 0.95],
      eps = 1e-8,
      weightDecay = 0.01,
      groups = [],
    } = options ?? {}
    super(
      call(() =>
        native.Optimizer.adamw(handle, {
          lr,
          betas: [...betas],
          eps,
          weightDecay,
          groups: groups.map(({ betas: own, ...rest }) =>
            own ? { ...rest, betas: [...own] } : rest,
          ),
        }),
      ),
    )
  }
}

/** Stochastic gradient descent: p <- p - lr / sqrt(t + 1) (g + weightDecay p), t from 0. */
export class Sgd extends Optimizer {
  /** @throws KindlingError `ERR_INVALID_ARGUMENT` for a setting out of its range. */
  constructor(model: Transformer, options: SgdOptions = {}) {
    const handle = Transformer.toNative(model)
    const { lr = 1e-4, weightDecay = 0, decay = 'sqrt', groups = [] } = options ?? {}
    if (decay !== 'sqrt' && decay !== 'none') {
      throw new KindlingError('ERR_INVALID_ARGUMENT', "decay must be 'sqrt' or 'none'")
    }
    super(
      call(() =>
        native.Optimizer.sgd(handle, {
          lr,
          weightDecay,
          constant: decay === 'none',
          groups: [...groups],
        }),
      ),
    )
  }
}
