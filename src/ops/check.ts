/**
 * Checks the arguments of `ops`: types and sizes. The engine checks lengths against sizes, and ids
 * against the vocabulary.
 */
import { types } from 'node:util'
import { KindlingError, call } from '../errors'
import { isObject, shown } from '../options'

/** Returns `value` if it is a Float32Array. */
export function floats(op: string, name: string, value: unknown): Float32Array {
  if (types.isFloat32Array(value)) return value
  throw new KindlingError('ERR_INVALID_ARGUMENT', `${op}: ${name} must be a Float32Array`)
}

/** Like `floats`, for an optional array. */
export function optionalFloats(op: string, name: string, value: unknown): Float32Array | undefined {
  return value === undefined ? undefined : floats(op, name, value)
}

/**
 * Returns token ids: a Uint32Array, or an Int32Array (as in `batch.x` and token stores) without
 * negative ids.
 */
export function tokenIds(op: string, name: string, value: unknown): Uint32Array {
  if (types.isUint32Array(value)) return value
  if (types.isInt32Array(value)) {
    if (isEmpty(value)) return new Uint32Array()
    const position = value.findIndex((id) => id < 0)
    if (position < 0) return new Uint32Array(value.buffer, value.byteOffset, value.length)
    throw outOfRange(op, name, value, position)
  }
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${op}: ${name} must be a Uint32Array or an Int32Array`,
  )
}

/** Returns the targets of a loss: an Int32Array (-100: ignored) or a Uint32Array. */
export function targetIds(op: string, name: string, value: unknown): Int32Array {
  if (types.isInt32Array(value)) return value
  if (types.isUint32Array(value)) {
    if (isEmpty(value)) return new Int32Array()
    // As an int32, a larger id would be negative, and 2^32 - 100 would be ignored.
    const position = value.findIndex((id) => id >= 2 ** 31)
    if (position < 0) return new Int32Array(value.buffer, value.byteOffset, value.length)
    throw outOfRange(op, name, value, position)
  }
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${op}: ${name} must be an Int32Array or a Uint32Array`,
  )
}

/** Whether an array has no elements. One whose memory was transferred away has none, and no views. */
function isEmpty(value: Int32Array | Uint32Array): boolean {
  return value.length === 0
}

function outOfRange(
  op: string,
  name: string,
  ids: Int32Array | Uint32Array,
  position: number,
): KindlingError {
  return new KindlingError(
    'ERR_TOKEN_OUT_OF_RANGE',
    `${op}: ${name} has the id ${ids[position]} at position ${position}; ids are 0 to 2^31 - 1`,
  )
}

/** Returns `value` if it is an integer from 1 to 2^31 - 1. */
export function size(op: string, name: string, value: unknown): number {
  return integer(op, name, value, 1)
}

/** Returns `value` if it is an integer from `least` to 2^31 - 1. */
export function integer(op: string, name: string, value: unknown, least = 0): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value < 2 ** 31)
    return value
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${op}: ${name} is ${shown(value)}; it must be an integer of at least ${least}`,
  )
}

/** Returns `value` if it is a finite number of at least `least`. */
export function finite(op: string, name: string, value: unknown, least = -Infinity): number {
  if (typeof value === 'number' && Number.isFinite(value) && value >= least) return value
  const range = least === -Infinity ? 'a finite number' : `a finite number of at least ${least}`
  throw new KindlingError(
    'ERR_INVALID_ARGUMENT',
    `${op}: ${name} is ${shown(value)}; it must be ${range}`,
  )
}

/** Returns `value` if it is a list of two; the caller checks what they are. */
export function pair(op: string, name: string, value: unknown): [unknown, unknown] {
  if (Array.isArray(value) && value.length === 2) return [value[0], value[1]]
  throw new KindlingError('ERR_INVALID_ARGUMENT', `${op}: ${name} must be a list of two numbers`)
}

/** Wraps ops so that they first check that their argument is an object. */
export function withArguments<T extends object>(name: string, ops: T): T {
  if (typeof ops === 'function') return checkingArgument(name, ops) as T
  const entries = Object.entries(ops as Record<string, object>)
  return Object.fromEntries(
    entries.map(([key, op]) => [key, withArguments(`${name}.${key}`, op)]),
  ) as T
}

function checkingArgument(name: string, op: (...args: never[]) => unknown): unknown {
  return (argument: unknown, ...rest: unknown[]) => {
    if (isObject(argument))
      return call(() => (op as (...args: unknown[]) => unknown)(argument, ...rest))
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      `${name} takes an object of arrays and sizes, not ${shown(argument)}`,
    )
  }
}
