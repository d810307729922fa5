/** The platforms with a prebuilt addon, and the names of their packages. */
import { readFileSync } from 'node:fs'

/** The npm scope of the platform packages. */
export const PACKAGE_SCOPE = '@kindling-lm'

/** Platforms as Node names them, and the suffix for the C library or toolchain of the addon. */
const SUFFIXES: Readonly<Record<string, string>> = {
  'linux-x64': '-gnu',
  'linux-arm64': '-gnu',
  'darwin-x64': '',
  'darwin-arm64': '',
  'win32-x64': '-msvc',
}

/** What identifies a platform: `process.platform`, `process.arch` and the C library. */
export interface Machine {
  platform: string
  arch: string
  /** Whether the C library is musl, as on Alpine Linux. */
  musl: boolean
}

/** Returns the platform that this process runs on. */
export function thisMachine(): Machine {
  const { platform, arch } = process
  return { platform, arch, musl: platform === 'linux' && usesMusl() }
}

/**
 * Returns the name of a platform in packages and files (`linux-x64-gnu`), or null if no addon is
 * built for it.
 */
export function platformName({ platform, arch, musl }: Machine): string | null {
  const suffix = SUFFIXES[`${platform}-${arch}`]
  if (suffix === undefined) return null
  if (musl) return arch === 'x64' ? `${platform}-${arch}-musl` : null
  return `${platform}-${arch}${suffix}`
}

/**
 * Looks for musl among the libraries mapped into this process. Where /proc cannot be read, Node's
 * report tells whether the C library is glibc.
 */
function usesMusl(): boolean {
  try {
    return /\/(ld-musl-|libc\.musl-)/.test(readFileSync('/proc/self/maps', 'latin1'))
  } catch {
    const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } }
    return report?.header?.glibcVersionRuntime === undefined
  }
}
