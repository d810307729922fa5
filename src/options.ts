/** Checks the options that callers of the library pass: types, ranges and unknown names. */
import { z } from 'zod'
import { KindlingError, call } from './errors'
import { nearest } from './nearest'

/** T without `undefined` as the value of an optional property. */
export type Exact<T> = { [K in keyof T]: Exclude<T[K], undefined> }

/**
 * Whether a value is an object. What `#native in value` asks next holds for what a constructor of
 * Kindling has made alone: not for a Proxy around it, which can call none of its methods.
 */
export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

/** Schema of an AbortSignal, from this or another realm. */
export const abortSignal = z.custom<AbortSignal>(
  (value) =>
    isObject(value) &&
    typeof (value as AbortSignal).aborted === 'boolean' &&
    typeof (value as AbortSignal).addEventListener === 'function' &&
    typeof (value as AbortSignal).removeEventListener === 'function',
  'must be an AbortSignal',
)

/** A callback. */
export function callback<T>(): z.ZodType<T> {
  return z.custom<T>((value) => typeof value === 'function', 'must be a function')
}

/** Options of a long call. */
export const longCallFields = {
  signal: abortSignal.optional(),
  onProgress: callback<(bytesDone: number, bytesTotal: number) => void>().optional(),
}

/** A list of file names. */
export const fileNames = z.array(z.string())

/**
 * Checks what a caller passed as the options of `what`; undefined means no options.
 *
 * @returns a copy without undefined values.
 * @throws KindlingError `ERR_INVALID_ARGUMENT` naming every problem.
 */
export function checked<T extends z.ZodObject>(
  what: string,
  schema: T,
  value: unknown,
): Exact<z.output<T>> {
  if (!isObject(value) || call(() => Array.isArray(value))) {
    if (value === undefined) return checked(what, schema, {})
    throw invalid(what, `expected an object of options, not ${shown(value)}`)
  }
  return withoutUndefined(checkedValue(what, schema, value))
}

/**
 * Checks an argument.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` naming every problem.
 */
export function checkedValue<T extends z.ZodType>(
  what: string,
  schema: T,
  value: unknown,
): z.output<T> {
  const result = call(() => schema.safeParse(value, { reportInput: true }))
  if (result.success) return result.data
  throw invalid(what, problemsIn(result.error, schema))
}

/** Lists the problems that a schema found, in one line, with the names that may have been meant. */
export function problemsIn(error: z.ZodError, schema?: z.ZodType): string {
  const names = schema instanceof z.ZodObject ? Object.keys(schema.shape) : []
  return error.issues
    .map((issue) => {
      const at = issue.path.join('.')
      if (issue.code === 'unrecognized_keys') {
        const keys = issue.keys.map((key) => `${key}${guess(key, at === '' ? names : [])}`)
        return `${at === '' ? '' : `${at}: `}unknown option ${keys.join(', ')}`
      }
      const values = issue.code === 'invalid_value' ? issue.values : []
      const given = `${received(issue.input)}${guess(issue.input, values)}`
      const problem = `${describeIssue(issue)}${given}`
      if (at === '') return problem
      return problem.startsWith('must') ? `${at} ${problem}` : `${at}: ${problem}`
    })
    .join('; ')
}

/** Says what a value must be, in terms of what the user wrote. */
function describeIssue(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return describeType(issue)
    case 'invalid_value':
      return `must be ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.join(', ')}`
    case 'too_small':
      return describeBound(issue.inclusive === false ? 'above' : 'at least', issue.minimum, issue)
    case 'too_big':
      return describeBound(issue.inclusive === false ? 'below' : 'at most', issue.maximum, issue)
    default:
      return issue.message
  }
}

/** Says what was given instead, if that is short. */
function received(value: unknown): string {
  const isShown = typeof value === 'number' || (typeof value === 'string' && value.length <= 40)
  return isShown ? `, not ${value === '' ? 'empty' : value}` : ''
}

/** Suggests the known name that is nearest to a mistyped one, if any. */
function guess(typed: unknown, known: readonly unknown[]): string {
  const name = typeof typed === 'string' ? nearest(typed, known.map(String)) : null
  return name === null ? '' : ` (did you mean ${name}?)`
}

const TYPES: Readonly<Record<string, string>> = {
  number: 'a number',
  int: 'a whole number',
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
}

function describeType(issue: z.core.$ZodIssueInvalidType): string {
  const { expected, input, message } = issue
  if (input === undefined && message.endsWith(' received undefined')) return 'must be given'
  return `must be ${TYPES[expected] ?? expected}`
}

/** Bounds of a number, or of the length of a list or text. */
function describeBound(words: string, bound: number | bigint, { origin }: { origin: string }) {
  if (origin === 'array') return `must have ${words} ${bound} values`
  if (origin === 'string') return `must not be empty`
  return `must be ${words} ${bound}`
}

/** Returns a copy of an object without its undefined values. */
export function withoutUndefined<T extends object>(values: T): Exact<T> {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as Exact<T>
}

function invalid(what: string, problem: string): KindlingError {
  return new KindlingError('ERR_INVALID_ARGUMENT', `${what}: ${problem}`)
}

/** Says in a message what a value is: a number or a short text itself, else its kind. */
export function shown(value: unknown): string {
  if (value === null || ['number', 'boolean', 'bigint'].includes(typeof value)) return String(value)
  if (typeof value === 'string') return value.length <= 40 ? `'${value}'` : 'a long text'
  return Array.isArray(value) ? 'a list' : typeof value
}
