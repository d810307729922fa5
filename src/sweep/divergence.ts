/**
 * Decides whether a run of a sweep has diverged. The verdict depends on the metrics lines alone,
 * which a resumed run writes again bit for bit, so it is the same wherever a sweep was killed.
 */

/** The part of a metrics line that the verdict depends on. */
export interface LossLine {
  step: number
  /** Mean training loss since the previous line. */
  loss: number
}

/** A loss above this many times the first one is no longer noise. */
const FACTOR = 1.1
/** Consecutive lines that must be above it, so that a single spike is forgiven. */
const LINES = 3

/** The rule in words, for the table of a sweep. */
export const DIVERGENCE_RULE =
  `a loss that is not finite, or above ${FACTOR} times the first one ` +
  `in ${LINES} metrics lines in a row or at the end`

/**
 * Returns why a run diverged; null if it did not.
 *
 * @param isFinished - true if no line follows; then the last one alone decides.
 */
export function divergenceOf(lines: readonly LossLine[], isFinished: boolean): string | null {
  const first = lines[0]
  if (first === undefined || lines.length < 2) return null
  const limit = FACTOR * first.loss
  const needed = isFinished ? 1 : LINES
  const above = lines.slice(1).slice(-needed)
  if (above.length < needed || above.some(({ loss }) => loss <= limit)) return null
  const { step, loss } = above.at(-1)!
  return `loss ${loss.toFixed(4)} at step ${step}, ${first.loss.toFixed(4)} at step ${first.step}`
}
