/** How the runs of a sweep are compared and drawn, in a terminal and in its HTML file alike. */
import type { SweepResult } from './state'

/** The loss axis ends at this many times the greatest first loss, above which runs diverge. */
const CUT = 1.2

/** The loss that rates are compared by: of validation data if there are any; null if it diverged. */
export function finalLoss({ loss, valLoss, diverged }: SweepResult): number | null {
  return diverged ? null : (valLoss ?? loss)
}

/** Returns the end of the loss axis, given the first loss of each run. */
export function lossAxisEnd(firstLosses: readonly number[]): number {
  return CUT * Math.max(...firstLosses)
}
