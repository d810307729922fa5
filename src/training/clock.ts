/** The time of a run, and the line of metrics that it goes into. */
import { mfuOf } from '../device'
import type { LoopState, MetricsLine } from './run-folder'

/** Time spent on updates; evaluation, samples and checkpoints do not count as training speed. */
export class TrainingClock {
  readonly #begun = performance.now()
  readonly #before: number
  #since = performance.now()
  #tokens = 0

  /** FLOPs a token and the device's peak in TFLOP/s, null where it is unknown. */
  readonly #work: { flopsPerToken: number; peakTflops: number | null }

  constructor(before: number, work: { flopsPerToken: number; peakTflops: number | null }) {
    this.#before = before
    this.#work = work
  }

  /** Share of the device's peak since the last line, null where that is unknown. */
  mfu(): number | null {
    return mfuOf(this.#work.flopsPerToken, this.rate(), this.#work.peakTflops)
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
    const mfu = this.mfu()
    return {
      step,
      tokens: step * tokensPerStep,
      loss: state.loss_sum / state.loss_count,
      ...update,
      tokens_per_second: Math.round(this.rate()),
      ...(mfu !== null && { mfu: Math.round(mfu * 10_000) / 10_000 }),
      elapsed_s: Math.round(this.elapsed() * 1000) / 1000,
    }
  }
}
