/** Aborts work on Ctrl-C, a request to terminate, or a closed terminal. */
import { constants } from 'node:os'
import { isatty } from 'node:tty'
import { exitNow } from '../system'
import { terminals, write } from './streams'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** A process that a signal ends exits with this plus the signal's number. */
const SIGNAL_EXIT = 128

/**
 * Runs `work` with an AbortSignal that SIGINT, SIGTERM and SIGHUP abort, so that it can finish
 * cleanly. A second one ends the process at once, whatever its threads do.
 *
 * @param announcement - printed at the first one; says what happens next.
 */
export async function withInterrupt<T>(
  work: (signal: AbortSignal) => Promise<T>,
  announcement: string | (() => string) = 'stopping',
): Promise<T> {
  const controller = new AbortController()
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) exitNow(SIGNAL_EXIT + constants.signals[name])
    const what = typeof announcement === 'string' ? announcement : announcement()
    const clear = process.stderr.isTTY ? '\r\x1b[K' : ''
    write(process.stderr, `${clear}${name}: ${what}; a second one stops at once\n`)
    controller.abort()
  }
  for (const name of SIGNALS) process.on(name, onSignal)
  const stopListening = (): void => {
    for (const name of SIGNALS) process.off(name, onSignal)
  }
  try {
    const result = await work(controller.signal)
    stopListening()
    return result
  } catch (error) {
    // The process exits after interrupted work. Until then, a second signal must end it at once.
    if (!controller.signal.aborted) stopListening()
    throw error
  }
}

/**
 * Makes the process exit with its own code even if a terminal that it started with is gone by then.
 * Otherwise Node would try to restore the terminal's settings, fail, and abort.
 */
export function outliveTerminal(): void {
  process.on('exit', (code) => {
    if (!terminals.every((descriptor) => isatty(descriptor))) exitNow(code)
  })
}
