/** The learning rate of each update: a linear warm-up, a cosine, then a floor. */
import { KindlingError } from '../errors'

/** Corners of the schedule. */
export interface CosineScheduleOptions {
  /** Rate at the end of the warm-up. */
  lrMax: number
  /** Rate at the end of the cosine and after it. */
  lrMin: number
  /** Updates of warm-up, Tw. */
  warmupSteps: number
  /** Update at which the cosine ends, Tc, counted from the start of training; equal to Tw: no cosine part. */
  cosineSteps: number
}

/**
 * The rate of update t: lrMax t / Tw for t < Tw; lrMin for t > Tc; between them
 * lrMin + (1 + cos(pi (t - Tw) / (Tc - Tw))) / 2 (lrMax - lrMin).
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` for a rate or a number of steps out of its range.
 */
export function cosineSchedule(options: CosineScheduleOptions): (t: number) => number {
  const { lrMax, lrMin, warmupSteps, cosineSteps } = options
  for (const [name, value] of Object.entries({ lrMax, lrMin, warmupSteps, cosineSteps })) {
    if (!Number.isFinite(value) || value < 0) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        `${name} is ${value}; it must be a number of at least 0`,
      )
    }
  }
  if (warmupSteps > cosineSteps) {
    const message = `warmupSteps ${warmupSteps} is above cosineSteps ${cosineSteps}; the cosine ends after the warm-up`
    throw new KindlingError('ERR_INVALID_ARGUMENT', message)
  }
  return (t) => {
    if (t < warmupSteps) return (lrMax * t) / warmupSteps
    if (t > cosineSteps) return lrMin
    if (warmupSteps === cosineSteps) return lrMax
    const progress = (t - warmupSteps) / (cosineSteps - warmupSteps)
    return lrMin + ((1 + Math.cos(Math.PI * progress)) / 2) * (lrMax - lrMin)
  }
}
