/** The time of a run, and the line of metrics that it goes into. */
import type { LoopState, MetricsLine } from './run-folder'

/** Time spent on updates; evaluation, samples and checkpoints do not count as training speed. */
export class TrainingClock {
  readonly #begun = performance.now()
  readonly #before: number
  #since = performance.now()
  #tokens = 0

  constructor(before: number) {
    this.#before = before
  }

  count(tokens: number): void {
    this.#tokens += tokens
  }

  /** Tokens a second since the last line. */
  rate(): number {
    return this.#tokens / Math.max(1e-9, (performance.now() - this.#since) / 1000)
  }

  /** Seconds of the run, those before a resume included. */
  elapsed(): number {
    return this.#before + (performance.now() - this.#begun) / 1000
  }

  restart(): void {
    this.#since = performance.now()
    this.#tokens = 0
  }

  line(
    step: number,
    tokensPerStep: number,
    state: LoopState,
    update: { lr: number; grad_norm: number },
  ): MetricsLine {
    return {
      step,
      tokens: step * tokensPerStep,
      loss: state.loss_sum / state.loss_count,
      ...update,
      tokens_per_second: Math.round(this.rate()),
      elapsed_s: Math.round(this.elapsed() * 1000) / 1000,
    }
  }
}
