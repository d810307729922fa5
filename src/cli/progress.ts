/**
 * Progress of long commands: a live line with a bar on a terminal, elsewhere a plain line every few
 * seconds. Short runs without a terminal print nothing.
 */
import { count, duration, megabytes } from '../format'
import type { Output } from './output'
import { bar, columnsOf, fit } from './terminal'

/** Milliseconds between two plain lines. */
const PLAIN_LINE_MS = 5_000
/** Milliseconds between two updates of a line on a terminal. */
const REDRAW_MS = 50
/** Milliseconds between two updates of the elapsed time. */
const ELAPSED_MS = 500
/** Narrower terminals show no bar. */
const MIN_BAR_COLUMNS = 60

/** The progress line of every command: a bar, an amount, the time left, and more if it fits. */
abstract class Progress {
  #lastPlainLine = performance.now()
  #lastDrawn = -Infinity
  #first: { done: number; at: number } | null = null

  /** @param label - the work in progress, such as `encoding`. */
  constructor(
    protected readonly label: string,
    private readonly output: Output,
  ) {}

  report(done: number, total: number): void {
    const now = performance.now()
    // The amount in the first report may come from an earlier, interrupted run, so it says nothing
    // about the speed.
    const { done: before, at } = (this.#first ??= { done, at: now })
    // The amount may go down, if a file is read again or a total was an estimate.
    const perSecond = Math.max(0, done - before) / Math.max(1e-3, (now - at) / 1000)
    const text = this.text(done, total, perSecond)
    if (this.output.isLive) {
      if (done < total && now - this.#lastDrawn < REDRAW_MS) return
      this.#lastDrawn = now
      this.output.progress(text)
    } else if (now - this.#lastPlainLine >= PLAIN_LINE_MS) {
      this.#lastPlainLine = now
      this.output.note(text)
    }
  }

  protected text(done: number, total: number, perSecond: number): string {
    const columns = columnsOf(process.stderr) ?? Infinity
    const amount = this.amount(done, total)
    const drawn = columns >= MIN_BAR_COLUMNS ? `${bar(done, total)} ${amount}` : amount
    const left = perSecond > 0 ? [`${duration((total - done) / perSecond)} left`] : []
    return fit([`${this.label}: ${drawn}`, ...left, ...this.more(perSecond)], columns - 1)
  }

  /** Returns what is done, out of what. */
  protected abstract amount(done: number, total: number): string

  /** Returns what follows the time left. */
  protected abstract more(perSecond: number): string[]
}

/** Shows the bytes done, the time left and the speed. */
export class ByteProgress extends Progress {
  /** @param isEndless - the total is unknown, as for standard input. */
  constructor(
    label: string,
    output: Output,
    private readonly isEndless = false,
  ) {
    super(label, output)
  }

  protected override text(done: number, total: number, perSecond: number): string {
    if (!this.isEndless) return super.text(done, total, perSecond)
    const columns = columnsOf(process.stderr) ?? Infinity
    return fit([`${this.label}: ${megabytes(done)} MB`, ...this.more(perSecond)], columns - 1)
  }

  protected override amount(done: number, total: number): string {
    return `${megabytes(done)} of ${megabytes(total)} MB`
  }

  protected override more(perSecond: number): string[] {
    return perSecond > 0 ? [`${(perSecond / 1e6).toFixed(1)} MB/s`] : []
  }
}

/** Shows how many things are done, the time left and the rate. */
export class CountProgress extends Progress {
  /** @param things - what is counted, in the plural, such as `tokens`. */
  constructor(
    label: string,
    output: Output,
    private readonly things: string,
  ) {
    super(label, output)
  }

  protected override amount(done: number, total: number): string {
    return `${count(done)} of ${count(total)}`
  }

  protected override more(perSecond: number): string[] {
    return perSecond > 0 ? [`${count(perSecond)} ${this.things}/s`] : []
  }
}

/** Shows the steps done, the time left, and a detail about the current work. */
export class StepProgress extends Progress {
  #detail = ''

  /** @param detail - such as the rate and the loss of the current run. */
  show(detail: string, done: number, total: number): void {
    this.#detail = detail
    this.report(done, total)
  }

  protected override amount(done: number, total: number): string {
    return `${done} of ${total} steps`
  }

  protected override more(): string[] {
    return [this.#detail]
  }
}

/** Shows the elapsed time of `work`, and from its first report on the bytes done. */
export async function withProgress<T>(
  label: string,
  output: Output,
  work: (report: (done: number, total: number) => void) => Promise<T>,
): Promise<T> {
  const started = performance.now()
  const bytes = new ByteProgress(label, output)
  const show = (): void => {
    const text = `${label}: ${duration((performance.now() - started) / 1000)}`
    if (output.isLive) output.progress(text)
    else output.note(text)
  }
  const timer = setInterval(show, output.isLive ? ELAPSED_MS : PLAIN_LINE_MS)
  try {
    return await work((done, total) => {
      clearInterval(timer)
      bytes.report(done, total)
    })
  } finally {
    clearInterval(timer)
    output.clear()
  }
}
