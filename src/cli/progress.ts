/**
 * Progress of long commands: a live line with a bar on a terminal, elsewhere a plain line every few
 * seconds. Short runs without a terminal print nothing.
 */
import { count, duration, megabytes } from '../format'
import type { Output } from './output'
import { bar, columnsOf, fit } from './terminal'

/** Milliseconds between two plain lines. */
const PLAIN_LINE_MS = 5_000
/** Narrower terminals show no bar. */
const MIN_BAR_COLUMNS = 60

abstract class Progress {
  #lastPlainLine = performance.now()

  /** @param label - the work in progress, such as `encoding`. */
  constructor(
    protected readonly label: string,
    private readonly output: Output,
  ) {}

  report(done: number, total: number): void {
    const now = performance.now()
    const text = this.text(done, total, now)
    if (this.output.isLive) {
      this.output.progress(text)
    } else if (now - this.#lastPlainLine >= PLAIN_LINE_MS) {
      this.#lastPlainLine = now
      this.output.note(text)
    }
  }

  protected abstract text(done: number, total: number, now: number): string
}

/** Shows the bytes done, the speed and the time left. */
export class ByteProgress extends Progress {
  #first: { done: number; at: number } | null = null

  /** @param isEndless - the total is unknown, as for standard input. */
  constructor(
    label: string,
    output: Output,
    private readonly isEndless = false,
  ) {
    super(label, output)
  }

  protected override text(done: number, total: number, now: number): string {
    // The bytes of the first report may come from an earlier, interrupted run: they say nothing
    // about the speed.
    const { done: before, at } = (this.#first ??= { done, at: now })
    // A file that is read again, or a total that is an estimate, may count backwards.
    const rate = Math.max(0, done - before) / 1e6 / Math.max(1e-3, (now - at) / 1000)
    const speed = rate > 0 ? [`${rate.toFixed(1)} MB/s`] : []
    const columns = columnsOf(process.stderr) ?? Infinity
    if (this.isEndless) return fit([`${this.label}: ${megabytes(done)} MB`, ...speed], columns)
    const left = rate > 0 ? [`${duration((total - done) / 1e6 / rate)} left`] : []
    const amount = `${megabytes(done)} of ${megabytes(total)} MB`
    const drawn = columns >= MIN_BAR_COLUMNS ? `${bar(done, total)} ${amount}` : amount
    return fit([`${this.label}: ${drawn}`, ...left, ...speed], columns - 1)
  }
}

/** Shows how many of a number of items are done, without an estimate of the time left. */
export class CountProgress extends Progress {
  protected override text(done: number, total: number): string {
    return `${this.label}: ${bar(done, total)} ${count(done)} of ${count(total)}`
  }
}

/** Shows the steps done, the time left, and what else the work says of itself. */
export class StepProgress extends Progress {
  #first: { done: number; at: number } | null = null
  #detail = ''

  /** @param detail - such as the rate and the loss of the current run. */
  show(detail: string, done: number, total: number): void {
    this.#detail = detail
    this.report(done, total)
  }

  protected override text(done: number, total: number, now: number): string {
    // The steps before the first report may come from an earlier, interrupted run.
    const { done: before, at } = (this.#first ??= { done, at: now })
    const perStep = done > before ? (now - at) / 1000 / (done - before) : null
    const left = perStep === null ? [] : [`${duration((total - done) * perStep)} left`]
    const columns = columnsOf(process.stderr) ?? Infinity
    const amount = `${done} of ${total} steps`
    const drawn = columns >= MIN_BAR_COLUMNS ? `${bar(done, total)} ${amount}` : amount
    return fit([`${this.label}: ${drawn}`, ...left, this.#detail], columns - 1)
  }
}
