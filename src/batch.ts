/**
 * Batches of a training step: token ids x (batchSize x seqLength) and targets y, the token that
 * follows each id. `TokenStore.batch` builds them in native memory; you can also build batches from
 * arrays.
 */
import { types } from 'node:util'
import { KindlingError, call } from './errors'
import { native, type Native } from './native'
import { isObject, shown } from './options'

/** One row of token ids. */
export type TokenRow = Int32Array | Uint32Array | readonly number[]

/**
 * A batch built from arrays. x and y have the same shape: a list of rows of equal length, or one
 * flat array of `batchSize` rows. Ids are integers. A target of -100 is excluded from the loss.
 */
export interface BatchArrays {
  /** Token ids. */
  x: TokenRow | readonly TokenRow[]
  /** Targets: the token that follows each id. */
  y: TokenRow | readonly TokenRow[]
  /** Number of rows of flat arrays. Default 1. */
  batchSize?: number
}

/** A batch in native memory. */
export class Batch {
  readonly #native: Native.Batch

  /** @internal Use `TokenStore.batch`. */
  constructor(handle: Native.Batch) {
    this.#native = handle
  }

  /** Copies the token ids, batchSize x seqLength. */
  get x(): Int32Array {
    return call(() => this.#native.x)
  }

  /** Copies the targets, batchSize x seqLength. */
  get y(): Int32Array {
    return call(() => this.#native.y)
  }

  /** Number of rows. */
  get batchSize(): number {
    return this.#native.batchSize
  }

  /** Tokens per row. */
  get seqLength(): number {
    return this.#native.seqLength
  }

  /** @internal Returns the native handle, building a batch from arrays if needed. */
  static toNative(batch: Batch | BatchArrays): Native.Batch {
    if (isObject(batch) && #native in batch) return batch.#native
    if (!isObject(batch)) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        'expected a batch: { x, y }, or the result of TokenStore.batch',
      )
    }
    return call(() => fromArrays(batch))
  }
}

function fromArrays(batch: BatchArrays): Native.Batch {
  const x = flatten('x', batch.x, batch.batchSize)
  const y = flatten('y', batch.y, batch.batchSize)
  if (x.rows !== y.rows || x.ids.length !== y.ids.length) {
    throw new KindlingError(
      'ERR_SHAPE_MISMATCH',
      `batch: x is ${x.rows} x ${x.ids.length / x.rows} but y is ${y.rows} x ${y.ids.length / y.rows}`,
    )
  }
  return native.Batch.fromArrays(x.ids, y.ids, x.rows)
}

interface Flat {
  ids: Int32Array
  rows: number
}

function flatten(name: string, value: BatchArrays['x'], batchSize = 1): Flat {
  if (isRow(value)) {
    const ids = int32(name, value)
    if (!Number.isInteger(batchSize) || batchSize < 1 || ids.length % batchSize !== 0) {
      const rows = `${shown(batchSize)} rows of equal length`
      throw mismatch(`${name} has ${ids.length} tokens; it must be ${rows}`)
    }
    return { ids, rows: batchSize }
  }
  const rows: unknown[] = Array.isArray(value) ? value : []
  const width = isRow(rows[0]) ? rows[0].length : 0
  const ids = new Int32Array(rows.length * width)
  if (ids.length === 0) {
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      `batch: ${name} must be token ids, as a flat array or a list of rows`,
    )
  }
  for (const [i, row] of rows.entries()) {
    const converted = isRow(row) ? int32(name, row) : null
    if (converted?.length !== width) throw mismatch(`the rows of ${name} differ in length`)
    ids.set(converted, i * width)
  }
  return { ids, rows: rows.length }
}

/** Whether a value is a row of tokens. One whose memory was transferred away is empty. */
function isRow(value: unknown): value is TokenRow {
  if (types.isInt32Array(value) || types.isUint32Array(value)) return value.length > 0
  return Array.isArray(value) && typeof value[0] === 'number'
}

function int32(name: string, row: TokenRow): Int32Array {
  if (types.isInt32Array(row)) return row
  const ids = new Int32Array(row.length)
  for (let position = 0; position < ids.length; position++) {
    const id: unknown = row[position]
    if (typeof id !== 'number' || (id | 0) !== id) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        `batch: ${name}[${position}] is ${shown(id)}; a token id must be a 32-bit integer`,
      )
    }
    ids[position] = id
  }
  return ids
}

function mismatch(problem: string): KindlingError {
  return new KindlingError('ERR_SHAPE_MISMATCH', `batch: ${problem}`)
}
