/** Finding stop sequences in text that arrives in pieces. */

/**
 * Passes text through up to the first stop sequence. Withholds the end of the text as long as it
 * may be the beginning of a stop sequence.
 */
export class StopSequenceMatcher {
  readonly #sequences: readonly string[]
  #withheld = ''
  #matched = false

  /** @param sequences - empty strings are ignored. */
  constructor(sequences: readonly string[]) {
    this.#sequences = sequences.filter((sequence) => sequence !== '')
  }

  /** True once a stop sequence has been found. */
  get matched(): boolean {
    return this.#matched
  }

  /**
   * Adds `text` and returns what is certain to come before any stop sequence; nothing after a
   * match.
   */
  push(text: string): string {
    if (this.#matched) return ''
    const all = this.#withheld + text
    const starts = this.#sequences.map((sequence) => all.indexOf(sequence)).filter((at) => at >= 0)
    if (starts.length > 0) {
      this.#matched = true
      this.#withheld = ''
      return all.slice(0, Math.min(...starts))
    }
    const kept = Math.max(0, ...this.#sequences.map((sequence) => overlap(all, sequence)))
    this.#withheld = all.slice(all.length - kept)
    return all.slice(0, all.length - kept)
  }

  /** Returns the withheld text; call it at the end of the text. */
  flush(): string {
    const rest = this.#withheld
    this.#withheld = ''
    return rest
  }
}

/** Length of the longest proper prefix of `sequence` that `text` ends with. */
function overlap(text: string, sequence: string): number {
  for (let n = Math.min(text.length, sequence.length - 1); n > 0; n--) {
    if (text.endsWith(sequence.slice(0, n))) return n
  }
  return 0
}
