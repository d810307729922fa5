/**
 * When a run of a sweep counts as diverged. The verdict is a function of the metrics lines, which a
 * resumed run writes again bit for bit, so that it does not depend on where a sweep was killed.
 */

/** What the verdict reads of a metrics line. */
export interface LossLine {
  step: number
  /** Mean training loss since the line before. */
  loss: number
}

/** A loss above this many times the first one is no longer noise. */
const FACTOR = 1.1
/** Lines in a row that are above it: a single spike is forgiven. */
const LINES = 3

/** The rule in words, for the table of a sweep. */
export const DIVERGENCE_RULE =
  `a loss that is not finite, or above ${FACTOR} times the first one ` +
  `in ${LINES} metrics lines in a row or at the end`

/**
 * Returns why a run diverged; null if it did not.
 *
 * @param isFinished - no line follows, so that the last one alone decides.
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
