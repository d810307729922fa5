/** Breaks the time of a training step, or of a decoded token, down by op. */
import type { OpProfile } from '../../transformer'
import { round } from './engine'

/** One op's part of a step. */
export interface ProfileLine {
  op: string
  callsPerStep: number
  msPerStep: number
  /** Fraction of the step. */
  share: number
  /** Speed of the op's matrix multiplications; null if it has none. */
  gflops: number | null
}

/**
 * Returns a line per op, slowest first, and a last line for the time between the ops: making
 * batches, JavaScript, waiting for the engine's thread.
 *
 * @param times - milliseconds of each profiled step.
 */
export function profileLines(ops: readonly OpProfile[], times: readonly number[]): ProfileLine[] {
  const total = times.reduce((sum, time) => sum + time, 0)
  const line = (op: string, calls: number, ms: number, flops: number): ProfileLine => ({
    op,
    callsPerStep: calls / times.length,
    msPerStep: round(ms / times.length, 3),
    share: round(ms / total, 4),
    gflops: flops > 0 ? round(flops / ms / 1e6, 1) : null,
  })
  const lines = ops.map(({ op, calls, seconds, flops }) => line(op, calls, 1000 * seconds, flops))
  const inOps = ops.reduce((sum, { seconds }) => sum + 1000 * seconds, 0)
  return [...lines, line('between the ops', times.length, total - inOps, 0)]
}
