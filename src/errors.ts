/** The error class of Kindling, and the conversion of the addon's errors to it. */

/**
 * An error with a stable `code` (`ERR_...`, see docs/errors.md) and a message that says what to do.
 */
export class KindlingError extends Error {
  /** The error code; stable across releases. */
  readonly code: string

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'KindlingError'
    this.code = code
  }
}

const CODED = /^(ERR_[A-Z_]+): ([\s\S]*)$/

/**
 * Converts an error of the addon. One without a code comes from Node-API: an argument of the wrong
 * type, or else a bug (`ERR_INTERNAL`).
 */
export function fromNative(error: unknown): KindlingError {
  if (error instanceof KindlingError) return error
  const message = error instanceof Error ? error.message : String(error)
  const coded = CODED.exec(message)
  if (coded) return new KindlingError(coded[1]!, coded[2]!)
  const status = (error as { code?: unknown } | null)?.code
  const wrongType = typeof status === 'string' && /(InvalidArg|Expected)$/.test(status)
  return new KindlingError(wrongType ? 'ERR_INVALID_ARGUMENT' : 'ERR_INTERNAL', message, {
    cause: error,
  })
}

/** Calls the addon, converting its errors. */
export function call<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw fromNative(error)
  }
}

/** Awaits a long call of the addon, converting its errors. */
export async function settle<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw fromNative(error)
  }
}

/** Returns the error of a call that `signal` cancelled. */
export function cancelled(signal: AbortSignal): KindlingError {
  return new KindlingError('ERR_CANCELLED', 'cancelled', { cause: signal.reason })
}
