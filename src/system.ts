/** What the machine and this process have. */
import { readFileSync } from 'node:fs'
import { native } from './native'

/** Cores this process may use. */
export function availableThreads(): number {
  return native.availableThreads()
}

/** Instruction set of the CPU engine's inner loops: `scalar`, `avx2` or `avx512`. */
export function instructionSet(): string {
  return native.instructionSet()
}

/** Most memory this process has had resident, in MiB. */
export function peakRssMib(): number {
  // VmHWM belongs to this process alone; ru_maxrss may be that of the one it was forked from.
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
