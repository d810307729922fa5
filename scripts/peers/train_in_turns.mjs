/**
 * Runs `kindling bench train` in turns with another program, for side_by_side.py: prints `ready`
 * and waits for a line on its input before every K-th timed step. The last line of output is JSON,
 * with the time of a typical step.
 *
 * Usage: node train_in_turns.mjs PRESET DTYPE THREADS STEPS WARMUP K
 */
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const { benchTrain } = createRequire(import.meta.url)('../../dist/cli/bench/train.js')
const [preset, dtype, ...numbers] = process.argv.slice(2)
const [threads, steps, warmup, turn] = numbers.map(Number)
const input = createInterface({ input: process.stdin })
const lines = input[Symbol.asyncIterator]()
const beforeStep = async (step) => {
  const timed = step - warmup - 1
  if (timed < 0 || timed % turn !== 0) return
  process.stdout.write('ready\n')
  await lines.next()
}
const options = { preset, dtype, threads, steps, warmup, beforeStep, device: 'cpu' }
const { peakRssMib, stepMs, tokensPerSecond } = await benchTrain(options)
const result = {
  peak_rss_mib: peakRssMib,
  step_ms: stepMs,
  tokens_per_second: tokensPerSecond,
}
process.stdout.write(`${JSON.stringify(result)}\n`)
input.close()
