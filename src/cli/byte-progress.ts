/** How far a command that goes through bytes is: a live line with a bar on a terminal, a plain line now and then elsewhere. */
import { duration } from '../logger'
import type { Output } from './output'

/** Milliseconds between two plain lines. */
const LINE_MS = 5_000
const BAR_WIDTH = 20

/** Shows bytes done, MB/s and the time left. */
export class ByteProgress {
  #first: { done: number; at: number } | null = null
  #lined = performance.now()

  /**
   * @param what - the work, as `encoding`.
   * @param endless - the bytes in all are not known.
   */
  constructor(
    private readonly what: string,
    private readonly output: Output,
    private readonly endless = false,
  ) {}

  report(done: number, total: number): void {
    const now = performance.now()
    // A run that is continued has done bytes that cost no time.
    this.#first ??= { done, at: now }
    const text = this.#text(done, total, now)
    if (process.stderr.isTTY) {
      this.output.progress(text)
    } else if (now - this.#lined >= LINE_MS) {
      this.#lined = now
      this.output.note(text)
    }
  }

  #text(done: number, total: number, now: number): string {
    const { done: before, at } = this.#first!
    const rate = (done - before) / 1e6 / Math.max(1e-3, (now - at) / 1000)
    const megabytes = (done / 1e6).toFixed(1)
    if (this.endless) return `${this.what}: ${megabytes} MB  ${rate.toFixed(1)} MB/s`
    const filled = Math.round((done / Math.max(1, total)) * BAR_WIDTH)
    const bar = `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)}`
    const left = rate > 0 ? `  ${duration((total - done) / 1e6 / rate)} left` : ''
    return `${this.what}: ${bar} ${megabytes} of ${(total / 1e6).toFixed(1)} MB  ${rate.toFixed(1)} MB/s${left}`
  }
}
