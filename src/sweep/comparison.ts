/** How the runs of a sweep are compared and drawn, in the terminal and in the HTML report alike. */
import type { SweepResult } from './state'

/** The loss axis ends at this many times the greatest first loss, above which runs diverge. */
const CUT = 1.2

/**
 * Returns the loss that rates are compared by: the validation loss if there is one, else the
 * training loss; null if the run diverged.
 */
export function finalLoss({ loss, valLoss, diverged }: SweepResult): number | null {
  return diverged ? null : (valLoss ?? loss)
}

/** Returns the end of the loss axis, given the first loss of each run. */
export function lossAxisEnd(firstLosses: readonly number[]): number {
  return CUT * Math.max(...firstLosses)
}
