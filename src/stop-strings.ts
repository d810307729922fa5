/** Watches a growing text for strings that end it, holding back what may be the beginning of one. */
export class StopWatch {
  #held = ''
  #stopped = false

  constructor(readonly stops: readonly string[]) {}

  /** Whether a stop string has been seen. */
  get stopped(): boolean {
    return this.#stopped
  }

  /** Adds `text`; returns what may be shown: all up to a stop string, or up to what may become one. */
  push(text: string): string {
    if (this.#stopped) return ''
    const all = this.#held + text
    const found = this.stops.map((stop) => (stop ? all.indexOf(stop) : -1)).filter((at) => at >= 0)
    if (found.length > 0) {
      this.#stopped = true
      this.#held = ''
      return all.slice(0, Math.min(...found))
    }
    const keep = Math.max(0, ...this.stops.map((stop) => overlap(all, stop)))
    this.#held = all.slice(all.length - keep)
    return all.slice(0, all.length - keep)
  }

  /** What was held back, at the end of the text. */
  rest(): string {
    const held = this.#held
    this.#held = ''
    return held
  }
}

/** Length of the longest end of `text` that begins `stop`. */
function overlap(text: string, stop: string): number {
  for (let n = Math.min(text.length, stop.length - 1); n > 0; n--) {
    if (text.endsWith(stop.slice(0, n))) return n
  }
  return 0
}
