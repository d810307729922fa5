/**
 * Checks what a Linux addon needs from the system that loads it: no version of glibc above the
 * platform's, and no libraries but those of the C library. Reads them with readelf.
 *
 * Usage: node scripts/packages/symbols.js ADDON PLATFORM
 */
const { spawnSync } = require('node:child_process')
const path = require('node:path')
const { FetchError } = require('../wheels')
const { PLATFORMS } = require('./platforms')

const LIBRARIES =
  /^(lib(m|c|pthread|dl|rt|gcc_s)\.so\.\d|libc\.musl-x86_64\.so\.1|libc\.so|ld-linux-.*\.so\.\d)$/

function readelf(option, file) {
  const run = spawnSync('readelf', ['--wide', option, file], { encoding: 'utf8' })
  if (run.error) throw new FetchError('readelf is missing: install binutils')
  if (run.status !== 0) throw new FetchError(run.stderr.trim())
  return run.stdout
}

/** Orders version numbers such as 2.4 and 2.28. */
function isNewer(version, other) {
  const [[a, b], [c, d]] = [version, other].map((text) => text.split('.').map(Number))
  return a > c || (a === c && b > d)
}

/** Throws if `file` does not run on the oldest system that `platform` promises. */
function checkSymbols(file, platform) {
  const { glibc } = PLATFORMS[platform]
  const versions = [...readelf('--version-info', file).matchAll(/GLIBC_(\d+\.\d+)/g)]
  const newest = versions
    .map(([, version]) => version)
    .reduce((a, b) => (isNewer(b, a) ? b : a), '0.0')
  const needed = [...readelf('--dynamic', file).matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, n]) => n)
  const foreign = needed.filter((name) => !LIBRARIES.test(name))
  if (foreign.length > 0) throw new FetchError(`the addon links ${foreign.join(', ')}`)
  if (glibc === undefined ? newest !== '0.0' : isNewer(newest, glibc)) {
    throw new FetchError(`the addon needs glibc ${newest}; ${platform} promises ${glibc ?? 'none'}`)
  }
  process.stdout.write(`needs ${glibc ? `glibc ${newest}` : 'musl'}; links ${needed.join(', ')}\n`)
}

module.exports = { checkSymbols }
if (require.main === module) {
  try {
    checkSymbols(path.resolve(process.argv[2] ?? ''), process.argv[3] ?? 'linux-x64-gnu')
  } catch (error) {
    if (!(error instanceof FetchError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  }
}
