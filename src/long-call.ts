/** Long calls of the addon: off the event loop, with an AbortSignal and reports of progress. */
import { cancelled, settle } from './errors'
import { native } from './native'

/** How a long call reports, and how it is ended. */
export interface LongCallOptions {
  /** Ends the call with `ERR_CANCELLED`; nothing of it stays behind. */
  signal?: AbortSignal
  /** Called now and then, and once at the end, with the bytes done and the bytes in all. An error it throws ends the call. */
  onProgress?: (bytesDone: number, bytesTotal: number) => void
}

const REPORT_MS = 50

/** Runs `work`, which starts a call with this monitor. */
export async function longCall<T>(
  { signal, onProgress }: LongCallOptions,
  work: (monitor: native.Monitor) => Promise<T>,
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
  const timer = onProgress && setInterval(report, REPORT_MS)
  signal?.addEventListener('abort', cancel, { once: true })
  try {
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
