/**
 * Smoothing by an exponential moving average whose weight decays with the distance on the step axis,
 * so that neither zoom nor the density of the lines changes it. The method and the scale are those
 * of the "time weighted EMA" of Weights & Biases
 * (https://docs.wandb.ai/guides/app/features/panels/line-plot/smoothing/).
 */
import { ValueColumn } from './column'
import type { Series } from './series'

/** The whole step axis counts as this many pixels. */
const VIEWPORT = 1000
const MAX_WEIGHT = 0.999
/** The length of the axis is rounded up to a power of this, so that it rarely changes. */
const GROWTH = 1.25

/** The smoothed values of a growing series. */
export class Smoothed {
  readonly #weight: number
  #values = new ValueColumn()
  #range = 0
  #sum = 0
  #weights = 0
  #before = 0

  /** @param smoothing - 0 (none) to 1. */
  constructor(readonly smoothing: number) {
    this.#weight = Math.min(Math.sqrt(smoothing), MAX_WEIGHT)
  }

  /** Smooths what the series has gained since the last call. */
  follow(series: Series): Series {
    const { length } = series
    if (length < 2) return series
    const range = series.x('step', length - 1) - series.x('step', 0)
    if (range > this.#range || length < this.#values.length) this.#restart(series, range)
    this.#append(series)
    const values = this.#values
    return {
      length,
      y: (i) => values.at(i),
      x: (axis, i) => series.x(axis, i),
      extremes: (start, end) => values.extremes(start, end),
    }
  }

  #restart(series: Series, range: number): void {
    this.#range = GROWTH ** Math.ceil(Math.log(range) / Math.log(GROWTH))
    this.#values = new ValueColumn()
    this.#sum = this.#weights = 0
    this.#before = series.x('step', 0)
  }

  #append(series: Series): void {
    let distance = -1
    let decay = 1
    for (let i = this.#values.length; i < series.length; i++) {
      const y = series.y(i)
      if (Number.isNaN(y)) {
        this.#values.push(NaN)
        continue
      }
      const at = series.x('step', i)
      if (at - this.#before !== distance) {
        distance = at - this.#before
        decay = this.#weight ** ((distance / this.#range) * VIEWPORT)
      }
      this.#before = at
      this.#sum = this.#sum * decay + y
      this.#weights = this.#weights * decay + 1
      this.#values.push(this.#sum / this.#weights)
    }
  }
}
