/** Numbers and progress lines as the command line prints them. */
import test from 'ava'
import { count, duration, megabytes, percent } from '../src/format'
import type { Output } from '../src/cli/output'
import { bar, fit, sparkline, wrap } from '../src/cli/terminal'
import { ByteProgress, CountProgress } from '../src/cli/progress'

test('numbers are short', (t) => {
  t.deepEqual([0, 59.6, 185, 7_800, -1].map(duration), ['0s', '1m00s', '3m05s', '2h10m', '0s'])
  t.deepEqual([950, 12_345, 4.5e6, 2.1e9].map(count), ['950', '12.3k', '4.5M', '2.10B'])
  t.is(megabytes(1_234_567), '1.2')
  t.is(percent(0.1234), '12.3%')
})

test('a bar is empty at the start, full at the end, and survives an unknown total', (t) => {
  t.is(bar(0, 10), '░'.repeat(20))
  t.is(bar(5, 10), `${'█'.repeat(10)}${'░'.repeat(10)}`)
  t.is(bar(12, 10), '█'.repeat(20))
  t.is(bar(0, 0), '░'.repeat(20))
})

test.serial('a progress line says how much is done', (t) => {
  const lines: string[] = []
  const output = { isLive: true, progress: (text: string) => lines.push(text) } as unknown as Output
  new ByteProgress('encoding', output).report(5e6, 10e6)
  new ByteProgress('encoding', output, true).report(5e6, 0)
  new CountProgress('merging', output, 'merges').report(1_500, 3_000)
  const half = `${'█'.repeat(10)}${'░'.repeat(10)}`
  t.is(lines[0], `encoding: ${half} 5.0 of 10.0 MB`)
  t.is(lines[1], 'encoding: 5.0 MB')
  t.is(lines[2], `merging: ${half} 1.5k of 3.0k`)
})

test.serial('a progress line says the time left and the rate, and fits 40 columns', (t) => {
  const lines: string[] = []
  const output = { isLive: true, progress: (text: string) => lines.push(text) } as unknown as Output
  let now = 0
  const { now: realNow } = performance
  const { isTTY, columns } = process.stderr
  performance.now = () => now
  try {
    for (const width of [80, 40]) {
      Object.assign(process.stderr, { isTTY: true, columns: width })
      now = 0
      const counting = new CountProgress('evaluating', output, 'tokens')
      const reading = new ByteProgress('encoding', output)
      counting.report(1000, 9000)
      reading.report(50e6, 250e6)
      now = 10_000
      counting.report(3000, 9000)
      reading.report(150e6, 250e6)
    }
  } finally {
    performance.now = realNow
    Object.assign(process.stderr, { isTTY, columns })
  }
  t.is(lines[2], `evaluating: ${bar(1, 3)} 3.0k of 9.0k  30s left  200 tokens/s`)
  t.is(lines[3], `encoding: ${bar(3, 5)} 150.0 of 250.0 MB  10s left  10.0 MB/s`)
  t.is(lines[6], 'evaluating: 3.0k of 9.0k  30s left')
  t.is(lines[7], 'encoding: 150.0 of 250.0 MB  10s left')
})

test('the last parts of a line are left out on a narrow terminal', (t) => {
  t.is(fit(['step 1', 'loss 2', 'lr 3'], 80), 'step 1  loss 2  lr 3')
  t.is(fit(['step 1', 'loss 2', 'lr 3'], 19), 'step 1  loss 2')
  t.is(fit(['step 1', 'loss 2'], 3), 'step 1')
})

test('a long line is broken between words, with the rest indented', (t) => {
  const text = 'memory   about 26 MiB of a machine'
  t.is(wrap(text, null, 9), text)
  t.is(wrap(text, 80, 9), text)
  t.is(wrap(text, 24, 9), 'memory   about 26 MiB\n         of a machine')
  t.is(wrap('unbreakable', 5, 2), 'unbreakable')
})

test('a sparkline falls as the loss does, and skips what is not finite', (t) => {
  t.is(sparkline([8, 7, 6, NaN, 5, 4, 3, 2, 1], 8), '█▇▆▅▄▃▂▁')
  t.is(sparkline([1, 1, 1], 8), '▁▁▁')
  t.is(sparkline([], 8), '')
  t.is(sparkline([4, 4, 0, 0], 2), '█▁')
})
