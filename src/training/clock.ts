/** The clock of a run: training speed, MFU and elapsed time. */
import { mfuOf } from '../device'

/** Speed of training. */
export interface TrainingSpeed {
  tokensPerSecond: number
  /** Fraction of the device's peak, null if the peak is unknown. */
  mfu: number | null
}

/**
 * Measures the speed since the last `restart`. The loop restarts the clock after each metrics line,
 * so that evaluations and samples do not count.
 */
export class TrainingClock {
  readonly #startedAt = performance.now()
  readonly #secondsBefore: number
  readonly #flopsPerToken: number
  readonly #peakTflops: number | null
  #restartedAt = performance.now()
  #tokens = 0

  /**
   * @param secondsBefore - seconds of the run before it was resumed.
   * @param peakTflops - peak of the device in TFLOP/s, null if unknown.
   */
  constructor(
    secondsBefore: number,
    { flopsPerToken, peakTflops }: { flopsPerToken: number; peakTflops: number | null },
  ) {
    this.#secondsBefore = secondsBefore
    this.#flopsPerToken = flopsPerToken
    this.#peakTflops = peakTflops
  }

  /** Counts tokens trained on. */
  count(tokens: number): void {
    this.#tokens += tokens
  }

  /** Returns the speed since the last restart. */
  speed(): TrainingSpeed {
    const seconds = (performance.now() - this.#restartedAt) / 1000
    const tokensPerSecond = this.#tokens / Math.max(1e-9, seconds)
    return { tokensPerSecond, mfu: mfuOf(this.#flopsPerToken, tokensPerSecond, this.#peakTflops) }
  }

  /** Returns the clock's part of a metrics line, rounded. */
  line(): { tokensPerSecond: number; mfu?: number; elapsedS: number } {
    const { tokensPerSecond, mfu } = this.speed()
    return {
      tokensPerSecond: Math.round(tokensPerSecond),
      ...(mfu !== null && { mfu: Math.round(mfu * 10_000) / 10_000 }),
      elapsedS: Math.round(this.elapsed() * 1000) / 1000,
    }
  }

  /** Returns the seconds of the run, including those before a resume. */
  elapsed(): number {
    return this.#secondsBefore + (performance.now() - this.#startedAt) / 1000
  }

  /** Starts a new measurement of the speed. */
  restart(): void {
    this.#restartedAt = performance.now()
    this.#tokens = 0
  }
}
