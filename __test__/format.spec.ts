/** Numbers and progress lines as the command line prints them. */
import test from 'ava'
import { bar } from '../src/cli/terminal'
import { count, duration, megabytes, percent } from '../src/format'
import type { Output } from '../src/cli/output'
import { fit, sparkline } from '../src/cli/terminal'
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
  new CountProgress('merging', output).report(1_500, 3_000)
  const half = `${'█'.repeat(10)}${'░'.repeat(10)}`
  t.is(lines[0], `encoding: ${half} 5.0 of 10.0 MB`)
  t.is(lines[1], 'encoding: 5.0 MB')
  t.is(lines[2], `merging: ${half} 1.5k of 3.0k`)
})

test('the last parts of a line give way to a narrow terminal', (t) => {
  t.is(fit(['step 1', 'loss 2', 'lr 3'], 80), 'step 1  loss 2  lr 3')
  t.is(fit(['step 1', 'loss 2', 'lr 3'], 19), 'step 1  loss 2')
  t.is(fit(['step 1', 'loss 2'], 3), 'step 1')
})

test('a sparkline falls as the loss does, and skips what is not finite', (t) => {
  t.is(sparkline([8, 7, 6, NaN, 5, 4, 3, 2, 1], 8), '█▇▆▅▄▃▂▁')
  t.is(sparkline([1, 1, 1], 8), '▁▁▁')
  t.is(sparkline([], 8), '')
  t.is(sparkline([4, 4, 0, 0], 2), '█▁')
})
