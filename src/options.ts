/** The check of the options that callers of the library pass: types, ranges and unknown names. */
import { z } from 'zod'
import { KindlingError } from './errors'

/** T without `undefined` as the value of an optional property. */
export type Exact<T> = { [K in keyof T]: Exclude<T[K], undefined> }

/** An AbortSignal, of this or another realm. */
export const abortSignal = z.custom<AbortSignal>(
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    typeof (value as AbortSignal).aborted === 'boolean' &&
    typeof (value as AbortSignal).addEventListener === 'function',
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
 * Checks what a caller passed as the options of `what`; undefined is no options.
 *
 * @returns a copy without undefined values.
 * @throws KindlingError `ERR_INVALID_ARGUMENT` naming every problem.
 */
export function checked<T extends z.ZodObject>(
  what: string,
  schema: T,
  value: unknown,
): Exact<z.output<T>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    if (value === undefined) return checked(what, schema, {})
    throw invalid(what, `expected an object of options, not ${kindOf(value)}`)
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
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw invalid(what, problemsIn(result.error))
}

/** Lists the problems that a schema found, in one line. */
export function problemsIn(error: z.ZodError): string {
  return error.issues
    .map((issue) => {
      const at = issue.path.length > 0 ? `${issue.path.join('.')}: ` : ''
      return issue.code === 'unrecognized_keys'
        ? `${at}unknown option ${issue.keys.join(', ')}`
        : `${at}${issue.message}`
    })
    .join('; ')
}

/** Returns a copy of an object without its undefined values. */
export function withoutUndefined<T extends object>(values: T): Exact<T> {
  const entries = Object.entries(values).filter(([, value]) => value !== undefined)
  return Object.fromEntries(entries) as Exact<T>
}

function invalid(what: string, problem: string): KindlingError {
  return new KindlingError('ERR_INVALID_ARGUMENT', `${what}: ${problem}`)
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  return Array.isArray(value) ? 'a list' : typeof value
}
