/** One class for every error of Kindling, and the way errors of the addon become it. */

/** What went wrong, with a stable `code` (`ERR_...`, listed in docs/errors.md); the message says what to do. */
export class KindlingError extends Error {
  /** Stable across releases. */
  readonly code: string

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'KindlingError'
    this.code = code
  }
}

const CODED = /^(ERR_[A-Z_]+): ([\s\S]*)$/

/** An error of the addon as a KindlingError; one that is none of ours is a bug of ours, or a value of a wrong kind. */
export function fromNative(error: unknown): KindlingError {
  if (error instanceof KindlingError) return error
  const message = error instanceof Error ? error.message : String(error)
  const coded = CODED.exec(message)
  if (coded) return new KindlingError(coded[1]!, coded[2]!)
  const status = (error as { code?: unknown } | null)?.code
  const wrongKind = typeof status === 'string' && /(InvalidArg|Expected)$/.test(status)
  return new KindlingError(wrongKind ? 'ERR_INVALID_ARGUMENT' : 'ERR_INTERNAL', message, {
    cause: error,
  })
}

/** Calls the addon; its errors become KindlingErrors. */
export function call<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw fromNative(error)
  }
}

/** Starts a long call of the addon and awaits it; its errors become KindlingErrors. */
export async function settle<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw fromNative(error)
  }
}

/** The error of a call that its AbortSignal ended. */
export function cancelled(signal: AbortSignal): KindlingError {
  return new KindlingError('ERR_CANCELLED', 'cancelled', { cause: signal.reason })
}
