/** The metrics of a run as series over an axis. */
import type { Extremes } from './column'

/** The columns of x axes; every line has them, and none of them ever falls. */
export const AXES = ['step', 'tokens', 'elapsed_s'] as const
export type Axis = (typeof AXES)[number]

/** Numbers that a line may have, by their names in the file. */
export const METRICS = [
  'loss',
  'val_loss',
  'perplexity',
  'bits_per_byte',
  'lr',
  'grad_norm',
  'tokens_per_second',
  'mfu',
  'memory_mib',
  'device_memory_mib',
] as const
export type Metric = (typeof METRICS)[number]

/** The values of a metric: of all lines, or of the lines in `rows`. */
export interface Series {
  /** Number of values. */
  readonly length: number
  /** Value i; NaN where the line has none. */
  y(i: number): number
  /** Value i of an axis. */
  x(axis: Axis, i: number): number
  /** Places of the extremes of the values from `start` to `end`. */
  extremes(start: number, end: number): Extremes
}

/** The first of `length` ascending values that is at least `value`; `length` if none is. */
export function lowerBound(length: number, at: (i: number) => number, value: number): number {
  let low = 0
  let high = length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (at(middle) < value) low = middle + 1
    else high = middle
  }
  return low
}
