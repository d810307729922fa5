/**
 * Measures leaks by the resident memory of a child process, whose allocator returns freed memory at
 * once and whose garbage can be collected on request.
 */
const { spawnSync } = require('node:child_process')
const { memoryMib } = require('./claims')

const MARK = 'KINDLING_STEADY_MEMORY'
/**
 * A single arena, and a low threshold for returning freed memory, so that little of it looks like a
 * leak.
 */
const MALLOC = {
  MALLOC_ARENA_MAX: '1',
  MALLOC_MMAP_THRESHOLD_: '65536',
  MALLOC_TRIM_THRESHOLD_: '65536',
}

/** Runs `work` in a child process that runs this script again. */
function underSteadyMemory(work) {
  if (process.env[MARK] !== undefined) return work()
  const env = { ...process.env, ...MALLOC, [MARK]: '1' }
  // Keep the young generation small: its growth would hide a leak.
  const flags = ['--expose-gc', '--max-semi-space-size=1']
  const child = spawnSync(process.execPath, [...flags, ...process.argv.slice(1)], {
    env,
    stdio: 'inherit',
  })
  process.exitCode = child.status ?? 1
}

/** Returns the resident memory in MiB once garbage is collected and finalizers have run. */
async function settledMib() {
  let lowest = Infinity
  for (let round = 0; round < 4; round++) {
    globalThis.gc()
    await new Promise((resolve) => setTimeout(resolve, 20))
    lowest = Math.min(lowest, memoryMib('VmRSS'))
  }
  return lowest
}

/** Growth that does not count as a leak. */
const ALLOWED_MIB = 1

/**
 * Calls `span`, which works and then measures memory, at most `attempts` times, until memory has
 * not grown since the last time: a leak grows each time, the process itself does not. Returns all
 * measurements and the last growth, in MiB.
 *
 * @param first - the memory after a warm-up.
 */
async function growth(first, span, attempts) {
  const memory = [first]
  for (let attempt = 1; ; attempt++) {
    memory.push(await span())
    const grown = memory.at(-1) - memory.at(-2)
    if (grown < ALLOWED_MIB || attempt === attempts) return { grown, memory }
  }
}

module.exports = { ALLOWED_MIB, underSteadyMemory, settledMib, growth }
