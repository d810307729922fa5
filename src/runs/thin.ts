/**
 * Thins a series for a chart: keeps the least and the greatest value per bucket of the x axis, so
 * that no peak is lost, whatever the number of lines.
 */
import { lowerBound, type Axis, type Series } from './series'

/** A part of an axis. */
export interface Window {
  from: number
  to: number
}

/** Points of a chart, x ascending. */
export interface Points {
  x: number[]
  y: number[]
}

/** Returns the range of a series on an axis; null if it has no values. */
export function rangeOf(series: Series, axis: Axis): Window | null {
  if (series.length === 0) return null
  return { from: series.x(axis, 0), to: series.x(axis, series.length - 1) }
}

/**
 * Returns at most two points per bucket of `window`, and one on each side of it, so that lines run
 * to the edges.
 *
 * @param isOnGrid - if there are too many points to keep all, move those of a bucket to its first
 * and third quarter. Lines of several runs then share their x, so drawing them costs little more
 * than drawing one. No point moves by more than a bucket.
 */
export function thin(
  series: Series,
  axis: Axis,
  window: Window,
  buckets: number,
  isOnGrid = false,
): Points {
  const x = (i: number): number => series.x(axis, i)
  const first = Math.max(0, lowerBound(series.length, x, window.from) - 1)
  const after = lowerBound(series.length, x, window.to)
  const last = Math.min(series.length, after + (after < series.length ? 1 : 0))
  const points: Points = { x: [], y: [] }
  const add = (i: number, at = x(i)): void => {
    const y = series.y(i)
    if (Number.isNaN(y)) return
    points.x.push(at)
    points.y.push(rounded(y))
  }
  if (last - first <= 2 * buckets) {
    for (let i = first; i < last; i++) add(i)
    return points
  }
  const width = (window.to - window.from) / buckets
  let start = first
  for (let bucket = 1; bucket <= buckets && start < last; bucket++) {
    const edge = bucket === buckets ? Infinity : window.from + bucket * width
    const end = edge === Infinity ? last : Math.min(last, lowerBound(last, x, edge))
    const { least, greatest } = series.extremes(start, end)
    const place = (quarter: number): number | undefined =>
      isOnGrid ? window.from + (bucket - 1 + quarter / 4) * width : undefined
    if (least >= 0) add(Math.min(least, greatest), place(1))
    if (least !== greatest) add(Math.max(least, greatest), place(3))
    start = Math.max(start, end)
  }
  return points
}

/** Exact powers of ten. */
const POWERS = Array.from({ length: 23 }, (_, i) => 10 ** i)
/** Digits that a float32 holds. */
const DIGITS = 7

/** Rounds to the digits that a float32 holds, faster than `toPrecision` does. */
function rounded(value: number): number {
  const size = Math.abs(value)
  const places = DIGITS - 1 - Math.floor(Math.log10(size))
  const scale = POWERS[Math.abs(places)]
  if (scale === undefined) return Number(value.toPrecision(DIGITS))
  const digits = Math.round(places < 0 ? size / scale : size * scale)
  return Math.sign(value) * (places < 0 ? digits * scale : digits / scale)
}
