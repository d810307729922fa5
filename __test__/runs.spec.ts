/**
 * `kindling runs`, and what charts are made with: the reader of growing metrics, thinning,
 * smoothing.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { MetricsColumns } from '../src/runs/metrics-columns'
import { MetricsReader } from '../src/runs/metrics-reader'
import { thin } from '../src/runs/thin'
import { CLI, kindling, succeed, words } from './command-line'
import { temporaryFolder } from './helpers'
import { encodeCorpus } from './small-runs'

test('runs lists what is running, finished, interrupted and broken', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const runs = join(folder, 'runs')
  const train = (name: string): string[] => ['train', ...flags, '--run', join(runs, name)]
  const short = words('--max-steps 6 --log-interval 2 --eval-interval 6 --eval-tokens 64')
  await succeed(t, [...train('finished'), ...short])
  await succeed(t, [...train('interrupted'), ...short, ...words('--stop-at-step 3')])
  for (const name of ['no-config', 'damaged', 'no-checkpoint']) {
    cpSync(join(runs, 'finished'), join(runs, name), { recursive: true })
  }
  rmSync(join(runs, 'no-config', 'config.json'))
  writeFileSync(join(runs, 'damaged', 'config.json'), '{ "format_version": 1')
  appendFileSync(join(runs, 'damaged', 'metrics.jsonl'), '\n{"step": "x"}\n\u0000\n{"step": 7')
  rmSync(join(runs, 'no-checkpoint', 'checkpoints'), { recursive: true })
  mkdirSync(join(runs, 'notes'))
  const child = spawn(
    process.execPath,
    [CLI, ...train('running'), ...words('--max-steps 1000000 --log-interval 1')],
    { stdio: 'ignore' },
  )
  t.teardown(() => child.kill('SIGKILL'))
  while (!existsSync(join(runs, 'running', 'config.json'))) {
    await new Promise((resolve) => setTimeout(resolve, 50))
  }

  const { json } = await succeed(t, ['runs', runs, '--json'])
  const states = Object.fromEntries(json.map(({ name, state }) => [name, state]))
  t.deepEqual(states, {
    damaged: 'broken',
    finished: 'finished',
    interrupted: 'interrupted',
    'no-checkpoint': 'broken',
    'no-config': 'broken',
    running: 'running',
  })
  const finished = json.find(({ name }) => name === 'finished')!
  const lines = readFileSync(join(runs, 'finished', 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
  const last = JSON.parse(lines.at(-1)!) as Record<string, unknown>
  for (const key of ['loss', 'val_loss', 'tokens', 'elapsed_s']) t.is(finished[key], last[key], key)
  t.is(finished['steps'], 6)
  t.is(finished['total_steps'], 6)
  t.is(json.find(({ name }) => name === 'interrupted')!['steps'], 3)

  const closed = once(child, 'close')
  child.kill('SIGKILL')
  await closed
  const { stdout } = await succeed(t, ['runs', runs])
  t.regex(stdout, /running +interrupted .*(was killed|no checkpoint yet)/)
  t.regex(stdout, /finished +finished +6\/6/)
})

test('runs says so if there are none, and a missing folder is an error', async (t) => {
  const folder = temporaryFolder(t)
  const empty = await succeed(t, ['runs', folder])
  t.regex(empty.stderr, /no runs in/)
  const missing = await kindling(['runs', join(folder, 'nothing'), '--json'])
  t.is(missing.code, 1)
  t.is((missing.json[0]!['error'] as { code: string }).code, 'ERR_NOT_FOUND')
})

const line = (step: number, more: object = {}): string =>
  `${JSON.stringify({ step, tokens: step * 64, loss: 1 / step, elapsed_s: step / 10, ...more })}\n`

test('a reader takes new lines as they come, once each, and never a half-written one', async (t) => {
  const path = join(temporaryFolder(t), 'metrics.jsonl')
  const reader = new MetricsReader(path)
  t.false(await reader.poll())
  writeFileSync(path, line(1) + line(2, { val_loss: 3, sample: 'Schnee – 雪' }))
  t.true(await reader.poll())
  t.false(await reader.poll())
  const third = line(3)
  appendFileSync(path, third.slice(0, 9))
  await reader.poll()
  t.is(reader.columns.length, 2)
  appendFileSync(path, `${third.slice(9)}no json\n{"step":-1}\n${line(4)}`)
  await reader.poll()
  t.is(reader.columns.length, 4)
  t.is(reader.damagedLines, 2)
  t.is(reader.columns.lastValue('loss'), 0.25)
  t.is(reader.columns.lastValue('val_loss'), 3)
  t.is(reader.columns.last('tokens'), 256)
  t.deepEqual(await reader.samples(5), [{ step: 2, text: 'Schnee – 雪' }])
  t.is(reader.generation, 0)
})

test('a reader starts over on a file that a resume cut back, however it grew since', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'metrics.jsonl')
  const upTo = (last: number, factor: number): string =>
    Array.from({ length: last }, (_, i) => line(i + 1, { lr: i < 3 ? 1 : factor })).join('')
  writeFileSync(path, upTo(10, 1))
  const reader = new MetricsReader(path)
  await reader.poll()
  // A resume replaces the file by a shorter one.
  writeFileSync(join(folder, 'new'), upTo(5, 1))
  renameSync(join(folder, 'new'), path)
  await reader.poll()
  t.is(reader.columns.length, 5)
  t.is(reader.generation, 1)
  // Cut back and grown past the old end between two polls, in the same file.
  truncateSync(path, upTo(3, 1).length)
  appendFileSync(path, upTo(20, 2).slice(upTo(3, 2).length))
  await reader.poll()
  t.is(reader.columns.length, 20)
  t.is(reader.columns.lastValue('lr'), 2)
  t.is(reader.generation, 2)
  rmSync(path)
  await reader.poll()
  t.is(reader.columns.length, 0)
})

test('thinning keeps every extreme, and all points if there are few', (t) => {
  const columns = new MetricsColumns()
  const values = Array.from({ length: 40_000 }, (_, i) => Math.fround(Math.sin(i / 3000)))
  values[12_345] = 9
  values[23_456] = -9
  values[30_000] = NaN
  for (const [i, loss] of values.entries()) {
    columns.push({ step: i + 1, loss: Number.isNaN(loss) ? null : loss })
  }
  const series = columns.series('loss')!
  const all = thin(series, 'step', { from: 1, to: 40_000 }, 100)
  t.true(all.x.length <= 202)
  t.is(all.y[all.x.indexOf(12_346)], 9)
  t.is(all.y[all.x.indexOf(23_457)], -9)
  t.deepEqual(
    all.x,
    [...all.x].sort((a, b) => a - b),
  )
  // Every bucket's extremes are those of a plain search.
  for (let bucket = 0; bucket < 100; bucket++) {
    const [from, to] = [1 + (bucket * 39_999) / 100, 1 + ((bucket + 1) * 39_999) / 100]
    const inside = (x: number): boolean => x >= from && (x < to || bucket === 99)
    const plain = values.filter((y, i) => inside(i + 1) && !Number.isNaN(y))
    const kept = all.y.filter((_, i) => inside(all.x[i]!))
    t.is(Math.max(...kept), Number(Math.max(...plain).toPrecision(7)), String(bucket))
    t.is(Math.min(...kept), Number(Math.min(...plain).toPrecision(7)), String(bucket))
  }
  // On the grid of the buckets the values are the same, but at x positions that all runs share.
  const grid = thin(series, 'step', { from: 1, to: 40_000 }, 100, true)
  t.deepEqual(grid.y, all.y)
  t.true(grid.x.every((x, i) => Math.abs(x - all.x[i]!) <= 39_999 / 100))
  const width = 39_999 / 100
  t.true(grid.x.every((x) => [1, 3].includes(Math.round((((x - 1) / width) % 1) * 4))))
  const few = thin(series, 'step', { from: 100, to: 110 }, 100)
  t.deepEqual(few.x, [99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110])
})

test('smoothing continues where it stopped, and starts over after lines were replaced', (t) => {
  const whole = new MetricsColumns()
  const parts = new MetricsColumns()
  const push = (columns: MetricsColumns, i: number, loss: number): boolean =>
    columns.push({ step: i, loss })
  for (let i = 1; i <= 3000; i++) push(whole, i, i % 7)
  for (let i = 1; i <= 1000; i++) push(parts, i, i % 7)
  parts.smoothed('loss', 0.5)
  for (let i = 1001; i <= 2600; i++) push(parts, i, 100)
  parts.smoothed('loss', 0.5)
  for (let i = 1001; i <= 3000; i++) push(parts, i, i % 7)
  const [a, b] = [whole, parts].map((columns) => columns.smoothed('loss', 0.5)!)
  for (let i = 0; i < 3000; i++) t.is(a!.y(i), b!.y(i))
  const middle = Array.from({ length: 1000 }, (_, i) => a!.y(1500 + i))
  t.true(Math.max(...middle) - Math.min(...middle) < 4)
  t.true(Math.abs(middle.reduce((sum, y) => sum + y, 0) / 1000 - 3) < 0.05)
})
