/** The metrics of a run as series over an axis. */
import type { Extremes } from './column'

/** Columns that serve as x axes. Every line has them, and they never decrease. */
export const AXES = ['step', 'tokens', 'elapsed_s'] as const
export type Axis = (typeof AXES)[number]

/** Metrics that a line may have, by their names in the file. */
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

/** The values of a metric, over all lines or over those that have it. */
export interface Series {
  /** Number of values. */
  readonly length: number
  /** Value i; NaN where the line has none. */
  y(i: number): number
  /** Value i of an axis. */
  x(axis: Axis, i: number): number
  /** Indices of the extremes of the values in [start, end). */
  extremes(start: number, end: number): Extremes
}

/**
 * Returns the index of the first of `length` ascending values that is at least `value`; `length` if
 * none is.
 */
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
