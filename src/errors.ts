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

/** Calls the addon, or reads what a caller passed, converting errors. */
export function call<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw fromCall(error)
  }
}

/** Awaits a long call of the addon, converting its errors. */
export async function settle<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw fromCall(error)
  }
}

/**
 * Converts an error of a call. One that is not the addon's comes from reading an argument: a getter
 * or a Proxy that throws, or an object that cannot be shown in a message, for it contains itself.
 */
function fromCall(error: unknown): KindlingError {
  const isCoded = error instanceof Error && (CODED.test(error.message) || 'code' in error)
  if (isCoded) return fromNative(error)
  const reason = error instanceof Error ? error.message : 'it throws'
  return new KindlingError('ERR_INVALID_ARGUMENT', `an argument cannot be read: ${reason}`, {
    cause: error,
  })
}

/** Returns the error of a call that `signal` cancelled. */
export function cancelled(signal: AbortSignal): KindlingError {
  return new KindlingError('ERR_CANCELLED', 'cancelled', { cause: signal.reason })
}
