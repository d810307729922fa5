/**
 * Columns of numbers that grow in blocks, which are never copied. A column of values also keeps the
 * least and the greatest value of each group of 64, so that the extremes of a long range are found
 * without reading all of it.
 */

const BLOCK_BITS = 14
const BLOCK = 1 << BLOCK_BITS
const MASK = BLOCK - 1
const GROUP_BITS = 6
const GROUP = 1 << GROUP_BITS

/** Indices of the least and the greatest value in a range; -1 if all are NaN. */
export interface Extremes {
  least: number
  greatest: number
}

/** A column of positions, as float64. */
export class PositionColumn {
  readonly #blocks: Float64Array[] = []
  length = 0

  at(i: number): number {
    return this.#blocks[i >> BLOCK_BITS]![i & MASK]!
  }

  push(value: number): void {
    const at = this.length & MASK
    if (at === 0) this.#blocks.push(new Float64Array(BLOCK))
    this.#blocks.at(-1)![at] = value
    this.length++
  }

  truncate(length: number): void {
    if (length >= this.length) return
    this.#blocks.length = Math.ceil(length / BLOCK)
    this.length = length
  }
}

/** A column of values, as float32, with NaN for missing ones. */
export class ValueColumn {
  readonly #blocks: Float32Array[] = []
  /** The extremes of each group; NaN while a group has no value. */
  #least: number[] = []
  #greatest: number[] = []
  length = 0

  at(i: number): number {
    return this.#blocks[i >> BLOCK_BITS]![i & MASK]!
  }

  push(value: number): void {
    const at = this.length & MASK
    if (at === 0) this.#blocks.push(new Float32Array(BLOCK))
    this.#blocks.at(-1)![at] = value
    this.#widen(this.length >> GROUP_BITS, Math.fround(value))
    this.length++
  }

  #widen(group: number, value: number): void {
    if (group === this.#least.length) {
      this.#least.push(value)
      this.#greatest.push(value)
      return
    }
    // Comparisons with NaN are false, hence the negations.
    if (!(this.#least[group]! <= value) && !Number.isNaN(value)) this.#least[group] = value
    if (!(this.#greatest[group]! >= value) && !Number.isNaN(value)) this.#greatest[group] = value
  }

  truncate(length: number): void {
    if (length >= this.length) return
    this.#blocks.length = Math.ceil(length / BLOCK)
    this.length = length
    const group = length >> GROUP_BITS
    this.#least.length = this.#greatest.length = group
    for (let i = group << GROUP_BITS; i < length; i++) this.#widen(group, this.at(i))
  }

  /** Finds the extremes of the values in [start, end). */
  extremes(start: number, end: number): Extremes {
    const firstWhole = (start + GROUP - 1) >> GROUP_BITS
    const lastWhole = end >> GROUP_BITS
    const found = new Search(this)
    if (firstWhole >= lastWhole) {
      found.scan(start, end)
      return found.extremes
    }
    found.scan(start, firstWhole << GROUP_BITS)
    found.scan(lastWhole << GROUP_BITS, end)
    let low = -1
    let high = -1
    for (let group = firstWhole; group < lastWhole; group++) {
      if (this.#least[group]! < found.min) {
        found.min = this.#least[group]!
        low = group
      }
      if (this.#greatest[group]! > found.max) {
        found.max = this.#greatest[group]!
        high = group
      }
    }
    if (low >= 0) found.extremes.least = this.#find(found.min, low)
    if (high >= 0) found.extremes.greatest = this.#find(found.max, high)
    return found.extremes
  }

  #find(value: number, group: number): number {
    let i = group << GROUP_BITS
    while (this.at(i) !== value) i++
    return i
  }
}

/** Searches for extremes value by value. */
class Search {
  readonly extremes: Extremes = { least: -1, greatest: -1 }
  min = Infinity
  max = -Infinity

  constructor(private readonly column: ValueColumn) {}

  scan(start: number, end: number): void {
    for (let i = start; i < end; i++) {
      const value = this.column.at(i)
      if (value < this.min) {
        this.min = value
        this.extremes.least = i
      }
      if (value > this.max) {
        this.max = value
        this.extremes.greatest = i
      }
    }
  }
}
