/**
 * Checks of what callers hand to `ops`: kinds and sizes. Lengths against shapes are checked by the engine
 * (`ERR_SHAPE_MISMATCH`), ids against the vocabulary too (`ERR_TOKEN_OUT_OF_RANGE`).
 */
import { KindlingError } from '../errors'

/** The array `name` of `op`, which must be a Float32Array. */
export function floats(op: string, name: string, value: unknown): Float32Array {
  if (value instanceof Float32Array) return value
  throw new KindlingError('ERR_INVALID_ARGUMENT', `${op}: ${name} must be a Float32Array`)
}

/** As `floats`, or undefined where the array may be left out. */
export function optionalFloats(op: string, name: string, value: unknown): Float32Array | undefined {
  return value === undefined ? undefined : floats(op, name, value)
}

/** Token ids: a Uint32Array, or an Int32Array without negative ids (what `batch.x` and stores hold). */
export function tokenIds(op: string, name: string, value: unknown): Uint32Array {
  if (value instanceof Uint32Array) return value
  if (value instanceof Int32Array) {
    const position = value.findIndex((id) => id < 0)
    if (position < 0) return new Uint32Array(value.buffer, value.byteOffset, value.length)
    throw new KindlingError(
      'ERR_TOKEN_OUT_OF_RANGE',
      `${op}: ${name} holds the id ${String(value[position])} at position ${position}; ids are not negative`,
    )
  }
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${op}: ${name} must be a Uint32Array or an Int32Array`,
  )
}

/** Targets of a loss: an Int32Array (-100: not counted) or a Uint32Array. */
export function targetIds(op: string, name: string, value: unknown): Int32Array {
  if (value instanceof Int32Array) return value
  if (value instanceof Uint32Array)
    return new Int32Array(value.buffer, value.byteOffset, value.length)
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${op}: ${name} must be an Int32Array or a Uint32Array`,
  )
}

/** A size: an integer from 1 to 2^31 - 1. */
export function size(op: string, name: string, value: unknown): number {
  return integer(op, name, value, 1)
}

/** An integer from `least` to 2^31 - 1. */
export function integer(op: string, name: string, value: unknown, least = 0): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value < 2 ** 31)
    return value
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${op}: ${name} is ${String(value)}; it must be an integer of at least ${least}`,
  )
}

/** A finite number, at least `least`. */
export function finite(op: string, name: string, value: unknown, least = -Infinity): number {
  if (typeof value === 'number' && Number.isFinite(value) && value >= least) return value
  const range = least === -Infinity ? 'a finite number' : `a finite number of at least ${least}`
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${op}: ${name} is ${String(value)}; it must be ${range}`,
  )
}
