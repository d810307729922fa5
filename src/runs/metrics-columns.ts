/**
 * The numbers of a metrics.jsonl in columns. A line takes about 50 bytes, so a million lines fit
 * into memory.
 */
import { PositionColumn, ValueColumn } from './column'
import { AXES, METRICS, lowerBound, type Axis, type Metric, type Series } from './series'
import { Smoothed } from './smooth'

/** Metrics that only lines with an evaluation have. */
const RARE: ReadonlySet<Metric> = new Set<Metric>(['val_loss', 'perplexity', 'bits_per_byte'])

/** A parsed line, of which only the numbers are used. */
export type ParsedLine = Readonly<Record<string, unknown>>

/** The columns of one file. */
export class MetricsColumns {
  readonly #axes: Record<Axis, PositionColumn> = {
    step: new PositionColumn(),
    tokens: new PositionColumn(),
    elapsed_s: new PositionColumn(),
  }
  readonly #dense = new Map<Metric, ValueColumn>()
  readonly #rare = new Map<Metric, { rows: PositionColumn; values: ValueColumn }>()

  readonly #smoothed = new Map<Metric, Smoothed>()

  /** Number of lines. */
  get length(): number {
    return this.#axes.step.length
  }

  /** Metrics that at least one line has. */
  get metrics(): Metric[] {
    return METRICS.filter((name) => this.#dense.has(name) || this.#rare.has(name))
  }

  /**
   * Adds a line. If its step is not above the last one, it replaces the lines from its step on.
   *
   * @returns false, and adds nothing, if the line has no step.
   */
  push(line: ParsedLine): boolean {
    const { step } = line
    if (typeof step !== 'number' || !Number.isSafeInteger(step) || step < 0) return false
    if (this.length > 0 && step <= this.last('step')) this.truncate(this.lowerBound('step', step))
    const row = this.length
    this.#axes.step.push(step)
    for (const axis of ['tokens', 'elapsed_s'] as const) {
      const before = row === 0 ? 0 : this.#axes[axis].at(row - 1)
      this.#axes[axis].push(Math.max(before, finite(line[axis]) ?? before))
    }
    for (const name of METRICS) {
      const value = finite(line[name])
      if (RARE.has(name)) {
        if (value !== null) this.#pushRare(name, row, value)
      } else if (value !== null || this.#dense.has(name)) {
        this.#denseColumn(name, row).push(value ?? NaN)
      }
    }
    return true
  }

  #denseColumn(name: Metric, row: number): ValueColumn {
    let column = this.#dense.get(name)
    if (column === undefined) {
      column = new ValueColumn()
      while (column.length < row) column.push(NaN)
      this.#dense.set(name, column)
    }
    return column
  }

  #pushRare(name: Metric, row: number, value: number): void {
    let series = this.#rare.get(name)
    if (series === undefined) {
      series = { rows: new PositionColumn(), values: new ValueColumn() }
      this.#rare.set(name, series)
    }
    series.rows.push(row)
    series.values.push(value)
  }

  /** Removes the lines from `length` on. */
  truncate(length: number): void {
    this.#smoothed.clear()
    for (const axis of AXES) this.#axes[axis].truncate(length)
    for (const column of this.#dense.values()) column.truncate(Math.min(length, column.length))
    for (const { rows, values } of this.#rare.values()) {
      let kept = rows.length
      while (kept > 0 && rows.at(kept - 1) >= length) kept--
      rows.truncate(kept)
      values.truncate(kept)
    }
  }

  /** The last value of an axis; 0 without lines. */
  last(axis: Axis): number {
    return this.length === 0 ? 0 : this.#axes[axis].at(this.length - 1)
  }

  /** The first value of an axis; 0 without lines. */
  first(axis: Axis): number {
    return this.length === 0 ? 0 : this.#axes[axis].at(0)
  }

  /** The first line whose value of `axis` is at least `value`; the number of lines if none is. */
  lowerBound(axis: Axis, value: number): number {
    return lowerBound(this.length, (i) => this.#axes[axis].at(i), value)
  }

  /** The values of a metric; null if no line has it. */
  series(name: Metric): Series | null {
    const dense = this.#dense.get(name)
    if (dense) {
      return {
        length: dense.length,
        y: (i) => dense.at(i),
        x: (axis, i) => this.#axes[axis].at(i),
        extremes: (start, end) => dense.extremes(start, end),
      }
    }
    const rare = this.#rare.get(name)
    if (!rare) return null
    return {
      length: rare.rows.length,
      y: (i) => rare.values.at(i),
      x: (axis, i) => this.#axes[axis].at(rare.rows.at(i)),
      extremes: (start, end) => rare.values.extremes(start, end),
    }
  }

  /** The values of a metric, smoothed (see smooth.ts); null if no line has it. */
  smoothed(name: Metric, smoothing: number): Series | null {
    const series = this.series(name)
    if (series === null || smoothing <= 0) return series
    let smoothed = this.#smoothed.get(name)
    if (smoothed?.smoothing !== smoothing) {
      smoothed = new Smoothed(smoothing)
      this.#smoothed.set(name, smoothed)
    }
    return smoothed.follow(series)
  }

  /** The last value of a metric; null if no line has it. */
  lastValue(name: Metric): number | null {
    const series = this.series(name)
    const value = series && series.length > 0 ? series.y(series.length - 1) : NaN
    return Number.isNaN(value) ? null : value
  }
}

function finite(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null
}
