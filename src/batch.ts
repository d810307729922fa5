/**
 * What a training step takes: token ids x (batchSize x seqLength) and, for each, the token that follows, y.
 * `TokenStore.batch` makes them without the ids ever passing through JavaScript; arrays of your own are taken too.
 */
import { KindlingError, call } from './errors'
import { native } from './native'

/** One row of token ids. */
export type TokenRow = Int32Array | Uint32Array | readonly number[]

/**
 * A batch of your own. x and y have the same shape: either a list of rows of one length, or one flat array with
 * `batchSize` rows (default 1). Ids are integers; -100 in y means: not counted in the loss.
 */
export interface BatchArrays {
  x: TokenRow | readonly TokenRow[]
  y: TokenRow | readonly TokenRow[]
  /** Rows of flat arrays. */
  batchSize?: number
}

/** A batch that lives in native memory. */
export class Batch {
  readonly #native: native.Batch

  /** @internal Made by `TokenStore.batch`. */
  constructor(handle: native.Batch) {
    this.#native = handle
  }

  /** A copy of the token ids, batchSize x seqLength. */
  get x(): Int32Array {
    return call(() => this.#native.x)
  }

  /** A copy of the targets, batchSize x seqLength. */
  get y(): Int32Array {
    return call(() => this.#native.y)
  }

  /** Rows. */
  get batchSize(): number {
    return this.#native.batchSize
  }

  /** Tokens a row. */
  get seqLength(): number {
    return this.#native.seqLength
  }

  /** @internal The native handle of a batch, made from arrays if need be. */
  static toNative(batch: Batch | BatchArrays): native.Batch {
    if (batch instanceof Batch) return batch.#native
    if (typeof batch !== 'object' || batch === null) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        'a batch is { x, y }, or what TokenStore.batch returns',
      )
    }
    const x = flatten('x', batch.x, batch.batchSize)
    const y = flatten('y', batch.y, batch.batchSize)
    if (x.rows !== y.rows || x.ids.length !== y.ids.length) {
      throw new KindlingError(
        'ERR_SHAPE_MISMATCH',
        `batch: x is ${x.rows} x ${x.ids.length / x.rows} but y is ${y.rows} x ${y.ids.length / y.rows}`,
      )
    }
    return call(() => native.Batch.fromArrays(x.ids, y.ids, x.rows))
  }
}

interface Flat {
  ids: Int32Array
  rows: number
}

function flatten(name: string, value: BatchArrays['x'], batchSize = 1): Flat {
  if (isRow(value)) {
    if (
      !Number.isInteger(batchSize) ||
      batchSize < 1 ||
      value.length % batchSize !== 0 ||
      value.length === 0
    ) {
      throw new KindlingError(
        'ERR_SHAPE_MISMATCH',
        `batch: ${name} has ${value.length} tokens, which are not ${batchSize} rows of one length`,
      )
    }
    return { ids: int32(name, value), rows: batchSize }
  }
  const rows: unknown[] = Array.isArray(value) ? value : []
  const width = isRow(rows[0]) ? rows[0].length : 0
  const ids = new Int32Array(rows.length * width)
  for (const [i, row] of rows.entries()) {
    if (!isRow(row) || row.length !== width) {
      throw new KindlingError('ERR_SHAPE_MISMATCH', `batch: the rows of ${name} differ in length`)
    }
    ids.set(int32(name, row), i * width)
  }
  if (ids.length > 0) return { ids, rows: rows.length }
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `batch: ${name} must hold token ids, flat or a list of rows`,
  )
}

function isRow(value: unknown): value is TokenRow {
  if (value instanceof Int32Array || value instanceof Uint32Array) return true
  return Array.isArray(value) && typeof value[0] === 'number'
}

function int32(name: string, row: TokenRow): Int32Array {
  if (row instanceof Int32Array) return row
  const ids = Int32Array.from(row)
  const position = ids.findIndex((id, i) => id !== row[i])
  if (position < 0) return ids
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `batch: ${name} holds ${String(row[position])} at ${position}, which is no token id`,
  )
}
