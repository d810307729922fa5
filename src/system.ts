/** Resources of the machine and of this process. */
import { readFileSync } from 'node:fs'
import { native } from './native'

/** Returns the number of cores available to this process. */
export function availableThreads(): number {
  return native.availableThreads()
}

/** Returns the instruction set of the CPU engine's inner loops: `scalar`, `avx2` or `avx512`. */
export function instructionSet(): string {
  return native.instructionSet()
}

/** Returns this process's peak resident memory in MiB. */
export function peakRssMib(): number {
  // ru_maxrss may be inherited from the parent process, so prefer VmHWM.
  const kib = /^VmHWM:\s*(\d+) kB/m.exec(readStatus())?.[1]
  return Number(kib ?? process.resourceUsage().maxRSS) / 1024
}

function readStatus(): string {
  try {
    return readFileSync('/proc/self/status', 'utf8')
  } catch {
    return ''
  }
}

/**
 * Ends the process at once. `process.exit` would wait for long calls of the addon, which run on
 * libuv's threads.
 */
export function exitNow(code: number): never {
  return native.exitNow(code)
}
