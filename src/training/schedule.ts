/** The learning-rate schedule: linear warm-up, cosine decay, constant floor. */
import { z } from 'zod'
import { KindlingError } from '../errors'
import { checked, shown } from '../options'

/** The schedule's rates and steps. */
export interface CosineScheduleOptions {
  /** Peak rate, reached at the end of the warm-up. */
  lrMax: number
  /** Rate at the end of the decay and after it. */
  lrMin: number
  /** Length of the warm-up in steps, Tw. */
  warmupSteps: number
  /**
   * Step at which the decay ends, Tc, counted from the start of training. If equal to Tw, there is
   * no decay.
   */
  cosineSteps: number
}

const least = z.number().min(0)
const schema = z.strictObject({
  lrMax: least,
  lrMin: least,
  warmupSteps: least,
  cosineSteps: least,
})

/**
 * Returns the learning rate as a function of the step t: lrMax t / Tw for t < Tw, lrMin for t > Tc,
 * and between them lrMin + (1 + cos(pi (t - Tw) / (Tc - Tw))) / 2 (lrMax - lrMin).
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` if a rate or a number of steps is negative or not
 * finite, or Tw > Tc; the function, if t is not a finite number.
 */
export function cosineSchedule(options: CosineScheduleOptions): (t: number) => number {
  const { lrMax, lrMin, warmupSteps, cosineSteps } = checked('cosineSchedule', schema, options)
  if (warmupSteps > cosineSteps) {
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      `warmupSteps ${warmupSteps} is above cosineSteps ${cosineSteps}; the decay must end after the warm-up`,
    )
  }
  return (t) => {
    if (!Number.isFinite(t)) {
      throw new KindlingError('ERR_INVALID_ARGUMENT', `a step must be a number, not ${shown(t)}`)
    }
    if (t < warmupSteps) return (lrMax * t) / warmupSteps
    if (t > cosineSteps) return lrMin
    if (warmupSteps === cosineSteps) return lrMax
    const progress = (t - warmupSteps) / (cosineSteps - warmupSteps)
    return lrMin + ((1 + Math.cos(Math.PI * progress)) / 2) * (lrMax - lrMin)
  }
}
