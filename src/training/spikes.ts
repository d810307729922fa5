/**
 * Detects spikes of the loss or the gradient norm, values far above those of the previous steps, so
 * that their updates can be skipped.
 *
 * A value spikes if it exceeds the mean of the last 128 by more than `threshold` sample standard
 * deviations, once there are at least 63. Skipped steps count among those 128, so that a loss that
 * has risen for good is accepted after a while. The rule is that of OLMo:
 * https://github.com/allenai/OLMo-core/blob/main/src/olmo_core/optim/skip_step_optimizer.py
 */

/** Maximum and minimum number of previous steps that a value is compared with. */
const MOST = 128
const FEWEST = MOST / 2 - 1

/** Losses and gradient norms of the last steps, oldest first, as a checkpoint keeps them. */
export interface SpikeState {
  losses: number[]
  gradNorms: number[]
}

/** Finds steps whose loss or gradient norm spikes. */
export class SpikeDetector {
  readonly #threshold: number
  readonly #losses: number[]
  readonly #gradNorms: number[]

  /** @param threshold - in standard deviations. */
  constructor(threshold: number, state: SpikeState = { losses: [], gradNorms: [] }) {
    this.#threshold = threshold
    this.#losses = [...state.losses]
    this.#gradNorms = [...state.gradNorms]
  }

  /**
   * Compares a step with the previous ones, then adds it to them.
   *
   * @returns what spikes, such as `loss 9.21 (mean 3.1, 12.3 standard deviations)`; null if nothing
   * does.
   */
  observe(loss: number, gradNorm: number): string | null {
    const spikes = [
      this.#spike('loss', loss, this.#losses),
      this.#spike('gradient norm', gradNorm, this.#gradNorms),
    ].filter((spike) => spike !== null)
    return spikes.length === 0 ? null : spikes.join(', ')
  }

  get state(): SpikeState {
    return { losses: [...this.#losses], gradNorms: [...this.#gradNorms] }
  }

  #spike(name: string, value: number, before: number[]): string | null {
    const { mean, std } = meanAndStd(before)
    const enough = before.length >= FEWEST
    before.push(value)
    if (before.length > MOST) before.shift()
    if (!enough || value - mean <= this.#threshold * std) return null
    const z = ((value - mean) / std).toFixed(1)
    return `${name} ${value.toPrecision(4)} (mean ${mean.toPrecision(4)}, ${z} standard deviations)`
  }
}

/** Mean and sample standard deviation. */
function meanAndStd(values: readonly number[]): { mean: number; std: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  return { mean, std: Math.sqrt(squares / (values.length - 1)) }
}
