/**
 * Long calls of the addon, with an AbortSignal and progress reports. They run off the event loop.
 */
import { cancelled, settle } from './errors'
import { native, type Native } from './native'

/** Cancellation and progress of a long call. */
export interface LongCallOptions {
  /** Cancels the call: it fails with `ERR_CANCELLED` and leaves nothing behind. */
  signal?: AbortSignal
  /**
   * Called about every 50 ms, and once at the end, with the bytes done and the total. If it
   * throws, the call fails with that error.
   */
  onProgress?: (bytesDone: number, bytesTotal: number) => void
}

const REPORT_MS = 50

/** Runs a call that reports to, and is cancelled through, the monitor passed to `work`. */
export async function longCall<T>(
  { signal, onProgress }: LongCallOptions,
  work: (monitor: Native.Monitor) => Promise<T>,
): Promise<T> {
  if (signal?.aborted) throw cancelled(signal)
  const monitor = new native.Monitor()
  const cancel = (): void => monitor.cancel()
  let thrown: { error: unknown } | undefined
  const report = (): void => {
    try {
      if (!thrown && monitor.total > 0) onProgress?.(monitor.done, monitor.total)
    } catch (error) {
      thrown = { error }
      cancel()
    }
  }
  let timer: NodeJS.Timeout | undefined
  try {
    signal?.addEventListener('abort', cancel, { once: true })
    if (onProgress) timer = setInterval(report, REPORT_MS)
    const result = await settle(() => work(monitor))
    report()
    if (thrown) throw thrown.error
    return result
  } catch (error) {
    if (thrown) throw thrown.error
    throw signal?.aborted ? cancelled(signal) : error
  } finally {
    clearInterval(timer)
    signal?.removeEventListener('abort', cancel)
  }
}
