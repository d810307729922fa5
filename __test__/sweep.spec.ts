/**
 * `kindling sweep`: it continues after a kill with the same results, stops runs that diverge,
 * draws.
 */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { KindlingError, sweep } from '../src'
import { toSnakeCase } from '../src/case'
import { sweepText } from '../src/cli/sweep-text'
import { textPlot } from '../src/cli/text-plot'
import { divergenceOf } from '../src/sweep/divergence'
import { toySweep } from '../src/sweep/toy'
import { kindling, succeed, words } from './command-line'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'

/** Runs of a model that trains in a moment. */
const RUNS = {
  ...{ vocabSize: 280, dModel: 16, numHeads: 2, dFf: 24, numLayers: 1, seqLength: 16 },
  ...{ batchSize: 4, threads: 1, evalTokens: 256, saveInterval: 50 },
}
const FLAGS = [
  ...words('--vocab-size 280 --d-model 16 --num-heads 2 --d-ff 24 --num-layers 1'),
  ...words('--seq-length 16 --batch-size 4 --threads 1 --eval-tokens 256 --save-interval 50'),
]

/** Calls `then` once a file exists, which is checked often. */
function whenThereIs(path: string, then: () => void): void {
  const timer = setInterval(() => {
    if (!existsSync(path)) return
    clearInterval(timer)
    then()
  }, 2)
}

test('a killed sweep continues by the same command, with the same results', async (t) => {
  const folder = temporaryFolder(t)
  const files = ['--corpus', writeCorpus(folder), '--data-dir', join(folder, 'data')]
  const out = join(folder, 'sweep')
  const rates = words('--lr 1e-3 1e-2 30 --steps 300')
  const args = ['sweep', ...FLAGS, ...files, ...rates, '--out', out, '--json']
  const killed = await kindling(args, (child) =>
    whenThereIs(join(out, 'lr-1e-2', 'latest'), () => child.kill('SIGKILL')),
  )
  t.is(killed.code, null)
  t.deepEqual(
    killed.json.map(({ lr }) => lr),
    [1e-3],
  )
  const first = join(out, 'lr-1e-3', 'metrics.jsonl')
  const written = statSync(first).mtimeMs
  const resumed = await succeed(t, args)
  t.regex(resumed.stderr, /resuming \S*lr-1e-2 at step \d+ of 300/)
  t.is(statSync(first).mtimeMs, written)
  const { results } = await sweep(
    { rates: [1e-3, 1e-2, 30], steps: 300, out: join(folder, 'whole') },
    { ...RUNS, corpus: files[1]!, dataDir: files[3]! },
  )
  t.deepEqual(
    resumed.json.map((line) => ({ ...line, run: '' })),
    results.map((result) => ({ ...toSnakeCase(result), run: '' })),
  )
  t.is(resumed.json.length, 3)
  // A finished sweep prints the same again.
  t.deepEqual((await succeed(t, args)).json, resumed.json)
  const diverged = results[2]!
  t.true(diverged.diverged && diverged.steps < 300, JSON.stringify(diverged))
  t.false(results[0]!.diverged || results[1]!.diverged)
  const page = readFileSync(join(out, 'report.html'), 'utf8')
  t.regex(page, /<svg[^>]*aria-label="Final validation loss by learning rate: /)
  t.regex(page, /<svg[^>]*aria-label="Training loss by step: /)
  t.notRegex(page, /<script/)
})

test('the same options have the same folder, and other options are refused in it', async (t) => {
  const folder = temporaryFolder(t)
  const text = { ...RUNS, corpus: writeCorpus(folder), dataDir: join(folder, 'data') }
  const out = join(folder, 'sweep')
  await sweep({ rates: [1e-3], steps: 2, out }, text)
  // One more rate, with another number of threads.
  const more = await sweep({ rates: [1e-3, 3e-3], steps: 2, out }, { ...text, threads: 2 })
  t.is(more.results.length, 2)
  const message = await rejectsWith(t, 'ERR_RESUME_MISMATCH', () =>
    sweep({ rates: [1e-3], steps: 2, out }, { ...text, batchSize: 8 }),
  )
  t.regex(message, /batch_size is 4 there; choose another --out/)
  writeFileSync(join(out, 'sweep.json'), '{"format_version": 1}')
  await rejectsWith(t, 'ERR_INVALID_CHECKPOINT', () =>
    sweep({ rates: [1e-3], steps: 2, out }, text),
  )
})

test('a sweep whose data changed is not continued', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const [out, dataDir] = [join(folder, 'sweep'), join(folder, 'data')]
  const runs = { ...RUNS, corpus, dataDir }
  await sweep({ rates: [1e-3], steps: 2, out }, runs)
  writeFileSync(corpus, `${readFileSync(corpus, 'utf8')} and more`)
  const more = { rates: [1e-3, 1e-2], steps: 2, out }
  const message = await rejectsWith(t, 'ERR_RESUME_MISMATCH', () => sweep(more, runs))
  t.regex(message, /the data has changed since .*lr-1e-3 was trained/)
})

test('a sweep runs to its end after the reader of its output has closed the pipe', async (t) => {
  const folder = temporaryFolder(t)
  const out = join(folder, 'sweep')
  const files = ['--corpus', writeCorpus(folder), '--data-dir', join(folder, 'data'), '--out', out]
  const rates = words('--lr 1e-3 1e-2 --steps 10 --json')
  const ended = await kindling(['sweep', ...FLAGS, ...files, ...rates], (child) =>
    child.stdout!.once('data', () => child.stdout!.destroy()),
  )
  t.is(ended.code, 0)
  const { results } = JSON.parse(readFileSync(join(out, 'sweep.json'), 'utf8')) as {
    results: unknown[]
  }
  t.is(results.length, 2)
})

test('a sweep that a signal ended reports that, and can be continued', async (t) => {
  const folder = temporaryFolder(t)
  const text = { ...RUNS, corpus: writeCorpus(folder), dataDir: join(folder, 'data') }
  const options = { rates: [1e-3, 1e-2], steps: 20, out: join(folder, 'sweep') }
  const controller = new AbortController()
  const done: number[] = []
  const error = await t.throwsAsync(
    sweep(
      {
        ...options,
        signal: controller.signal,
        onProgress: (progress) => {
          done.push(progress.done)
          t.is(progress.total, 40)
          if (progress.done === 27) controller.abort()
        },
      },
      text,
    ),
    { instanceOf: KindlingError },
  )
  t.is((error as KindlingError).code, 'ERR_CANCELLED')
  t.regex(error!.message, /at step 7, which is saved/)
  t.deepEqual(
    done,
    Array.from({ length: 27 }, (_, i) => i + 1),
  )
  const { results } = await sweep(options, text)
  const whole = await sweep({ ...options, out: join(folder, 'whole') }, text)
  t.deepEqual(
    results.map(({ loss, valLoss }) => [loss, valLoss]),
    whole.results.map(({ loss, valLoss }) => [loss, valLoss]),
  )
})

test('a resumed run that diverges is stopped where it would have been', async (t) => {
  const folder = temporaryFolder(t)
  const text = { ...RUNS, corpus: writeCorpus(folder), dataDir: join(folder, 'data') }
  const options = { rates: [30], steps: 20, out: join(folder, 'sweep') }
  const controller = new AbortController()
  await rejectsWith(t, 'ERR_CANCELLED', () =>
    sweep(
      {
        ...options,
        signal: controller.signal,
        // The run diverges at step 4, after three losses above its first.
        onProgress: ({ done }) => done === 3 && controller.abort(),
      },
      text,
    ),
  )
  const [resumed] = (await sweep(options, text)).results
  const [whole] = (await sweep({ ...options, out: join(folder, 'whole') }, text)).results
  t.true(whole!.diverged && whole!.steps > 3 && whole!.steps < 20, JSON.stringify(whole))
  t.deepEqual({ ...resumed, run: '' }, { ...whole, run: '' })
})

test('three lines above 1.1 times the first loss diverge, a spike does not', (t) => {
  const lines = (...losses: number[]) => losses.map((loss, i) => ({ step: i + 1, loss }))
  t.is(divergenceOf(lines(5, 9, 9, 4), false), null)
  t.is(divergenceOf(lines(5, 5.4, 5.4, 5.4), false), null)
  t.is(divergenceOf(lines(5, 4, 6, 6, 7), false), 'loss 7.0000 at step 5, 5.0000 at step 1')
  // At the end of a run, one line decides.
  t.is(divergenceOf(lines(5, 4, 6), false), null)
  t.regex(divergenceOf(lines(5, 4, 6), true) ?? '', /loss 6/)
})

test('a plot of a sweep fits its terminal, and shows which rate is which', (t) => {
  const [a, b] = [
    [4, 3, 2, 1],
    [4, 4, 4, 40],
  ] as const
  const [x, size] = [[1, 2, 3, 4], { columns: 30, rows: 5 }]
  const plot = textPlot(
    [
      { mark: 'a', x, y: a },
      { mark: 'b', x, y: b },
    ],
    size,
    5,
  )
  t.true(plot.every((line) => line.length <= 30))
  // The second line ends at the top, where it is clipped; the first one falls to the bottom.
  t.is(plot[0], `   5.000 │${' '.repeat(19)}b`)
  t.is(plot[4], `   1.000 │${' '.repeat(19)}a`)
  const result = { valLoss: null, diverged: false, reason: null, steps: 4, run: 'r' }
  const metrics = a.map((loss, i) => ({
    ...{ step: i + 1, tokens: 1, lr: 1, gradNorm: 1, tokensPerSecond: 1, elapsedS: 1 },
    loss,
  }))
  const drawn = [1e-3, 1e-2].map((lr, i) => ({
    result: { ...result, lr, loss: 1 + i },
    lines: metrics,
  }))
  const text = sweepText(drawn, 40).split('\n')
  t.true(
    text.every((line) => line.length <= 40),
    text.join('\n'),
  )
  t.regex(text.join('\n'), /a {2}1e-3 {2}1\.0000 .*best\nb {2}1e-2/)
})

test('the toy problem falls faster at 1e2 than at 1e1, and diverges at 1e3', (t) => {
  const [ten, hundred, thousand] = toySweep([1e1, 1e2, 1e3])
  t.is(ten!.losses.length, 10)
  // At 1e2 the first step multiplies each weight by 1 - 2 = -1: the loss stays, then vanishes.
  t.true(Math.abs(hundred!.losses[1]! - hundred!.losses[0]!) < 1e-4 * hundred!.losses[0]!)
  t.true(hundred!.losses[9]! < 1e-10 && ten!.losses[9]! > 1 && ten!.losses[9]! < ten!.losses[0]!)
  t.true(thousand!.diverged && !ten!.diverged && !hundred!.diverged)
})
