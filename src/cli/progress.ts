/** How far a long command is: a live line with a bar on a terminal; elsewhere a plain line now and then, none in short runs. */
import { count, duration } from './logger'
import type { Output } from './output'

/** Milliseconds between two plain lines. */
const LINE_MS = 5_000
const BAR_WIDTH = 20

/** Shows how much of a total is done. */
abstract class Progress {
  #lined = performance.now()

  /** @param what - the work, as `encoding`. */
  constructor(
    protected readonly what: string,
    private readonly output: Output,
  ) {}

  report(done: number, total: number): void {
    const now = performance.now()
    const text = this.text(done, total, now)
    if (process.stderr.isTTY) {
      this.output.progress(text)
    } else if (now - this.#lined >= LINE_MS) {
      this.#lined = now
      this.output.note(text)
    }
  }

  protected abstract text(done: number, total: number, now: number): string

  protected bar(done: number, total: number): string {
    const filled = Math.min(BAR_WIDTH, Math.round((done / Math.max(1, total)) * BAR_WIDTH))
    return `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)}`
  }
}

/** Shows bytes done, MB/s and the time left. */
export class ByteProgress extends Progress {
  #first: { done: number; at: number } | null = null

  /** @param endless - the bytes in all are not known. */
  constructor(
    what: string,
    output: Output,
    private readonly endless = false,
  ) {
    super(what, output)
  }

  protected override text(done: number, total: number, now: number): string {
    // A run that is continued has done bytes that cost no time.
    const { done: before, at } = (this.#first ??= { done, at: now })
    const rate = (done - before) / 1e6 / Math.max(1e-3, (now - at) / 1000)
    const megabytes = (done / 1e6).toFixed(1)
    if (this.endless) return `${this.what}: ${megabytes} MB  ${rate.toFixed(1)} MB/s`
    const left = rate > 0 ? `  ${duration((total - done) / 1e6 / rate)} left` : ''
    const all = (total / 1e6).toFixed(1)
    return `${this.what}: ${this.bar(done, total)} ${megabytes} of ${all} MB  ${rate.toFixed(1)} MB/s${left}`
  }
}

/** Shows how many of a number are done; how long the rest takes does not follow from it. */
export class CountProgress extends Progress {
  protected override text(done: number, total: number): string {
    return `${this.what}: ${this.bar(done, total)} ${count(done)} of ${count(total)}`
  }
}
