/** The order of the windows: epochs, mixtures, prefetched batches, and resumed runs. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { BatchLoader, KindlingError, TokenStore, Trainer, type Sampling } from '../src'
import { rejectsWith, temporaryFolder } from './helpers'

const SAMPLINGS: Sampling[] = ['random', 'epoch', 'sequential', 'dense']

/** Writes a store of ids that count up from `first`. */
async function counting(
  folder: string,
  name: string,
  first: number,
  length: number,
): Promise<TokenStore> {
  const store = join(folder, `${name}_chunks`)
  mkdirSync(store)
  const ids = Int32Array.from({ length }, (_, i) => first + i)
  writeFileSync(join(store, 'encoded_tokens_chunk_0.dat'), ids)
  return TokenStore.open(store)
}

function firsts(x: Int32Array, seqLength: number): number[] {
  return [...x.filter((_, i) => i % seqLength === 0)]
}

test('each epoch has every window once, in a new order', async (t) => {
  const store = await counting(temporaryFolder(t), 'all', 0, 801)
  const epoch = (first: number, sampling: Sampling): number[] =>
    Array.from({ length: 20 }, (_, i) => i).flatMap((i) =>
      firsts(store.batch({ batchSize: 5, seqLength: 8, seed: 7, step: first + i, sampling }).x, 8),
    )
  const windows = Array.from({ length: 100 }, (_, i) => 8 * i)
  t.deepEqual(epoch(1, 'sequential'), windows)
  t.deepEqual(epoch(21, 'sequential'), windows)
  const sorted = (values: number[]): number[] => [...values].sort((a, b) => a - b)
  t.notDeepEqual(epoch(1, 'epoch'), windows)
  t.notDeepEqual(epoch(1, 'epoch'), epoch(21, 'epoch'))
  t.deepEqual(sorted(epoch(1, 'epoch')), windows)
  t.deepEqual(sorted(epoch(21, 'epoch')), windows)
  t.is(new Set(epoch(1, 'dense')).size, 100)
})

test('a loader returns the batches of the store, whatever it prefetches', async (t) => {
  const store = await counting(temporaryFolder(t), 'all', 0, 5_000)
  const shape = { batchSize: 3, seqLength: 16, seed: 2, accumulate: 2 }
  for (const sampling of SAMPLINGS) {
    for (const prefetch of [0, 1, 5]) {
      const loader = new BatchLoader(store, { ...shape, sampling, prefetch })
      for (const step of [1, 2, 3, 40, 41, 2]) {
        for (const microBatch of [0, 1]) {
          const { x, y } = await loader.next({ step, microBatch })
          const expected = store.batch({ ...shape, sampling, step, microBatch })
          t.deepEqual([x, y], [expected.x, expected.y])
        }
      }
      loader.close()
    }
  }
})

test('a mixture draws windows by weight, as a function of the step', async (t) => {
  const folder = temporaryFolder(t)
  const parts = [
    { store: await counting(folder, 'a', 0, 1_000), weight: 3 },
    { store: await counting(folder, 'b', 10_000, 8_000), weight: 1 },
  ]
  const options = { batchSize: 10, seqLength: 8, seed: 4, sampling: 'epoch' as const }
  const loader = new BatchLoader(parts, options)
  const rows: number[][] = []
  for (let step = 1; step <= 200; step++) rows.push(firsts((await loader.next({ step })).x, 8))
  // 2,000 rows: 500 from the second store, with a standard deviation of 19.
  const second = rows.flat().filter((first) => first >= 10_000)
  t.true(Math.abs(second.length - 500) < 80, `${second.length} rows`)
  t.is(new Set(second).size, second.length)
  const resumed = new BatchLoader(parts, { ...options, prefetch: 0 })
  t.deepEqual(firsts((await resumed.next({ step: 150 })).x, 8), rows[149])
  t.throws(() => new BatchLoader([{ ...parts[0]!, weight: 0 }], options), {
    instanceOf: KindlingError,
  })
  t.throws(() => new BatchLoader(parts, { ...options, sampling: 'any' as Sampling }), {
    instanceOf: KindlingError,
  })
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', async () => loader.next({ step: 0 }))
})

const RUN = {
  dModel: 16,
  numHeads: 4,
  dFf: 24,
  numLayers: 1,
  vocabSize: 64,
  maxSeqLength: 8,
  seqLength: 8,
  batchSize: 4,
  accumulate: 2,
  maxSteps: 12,
  logInterval: 1,
  evalInterval: 0,
  sampleInterval: 0,
  threads: 1,
}

/** Returns the loss of each step of a run. */
function losses(run: string): number[] {
  const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => (JSON.parse(line) as { loss: number }).loss)
}

async function sources(t: ExecutionContext): Promise<{ folder: string; mixture: string[] }> {
  const folder = temporaryFolder(t)
  const a = await counting(folder, 'a', 0, 64)
  const b = await counting(folder, 'b', 3, 60)
  return { folder, mixture: [`${a.path}=0.7`, `${b.path}=0.3`] }
}

test('a resumed run on a mixture has the same losses, whatever it prefetches', async (t) => {
  const { folder, mixture } = await sources(t)
  for (const sampling of ['epoch', 'random'] as const) {
    const [whole, parts] = [join(folder, `whole-${sampling}`), join(folder, `parts-${sampling}`)]
    await new Trainer({ ...RUN, mixture, sampling, run: whole }).run()
    await new Trainer({ ...RUN, mixture, sampling, run: parts, prefetch: 0, stopAtStep: 5 }).run()
    await new Trainer({ run: parts, resume: true, prefetch: 3 }).run()
    t.deepEqual(losses(parts), losses(whole))
  }
  t.notDeepEqual(losses(join(folder, 'whole-epoch')), losses(join(folder, 'whole-random')))
  const run = join(folder, 'whole-epoch')
  await rejectsWith(t, 'ERR_RESUME_MISMATCH', () =>
    new Trainer({ run, resume: true, sampling: 'dense' }).run(),
  )
})

test('options missing from config.json take their defaults on resume', async (t) => {
  const { folder } = await sources(t)
  const data = join(folder, 'a_chunks')
  const [whole, old] = [join(folder, 'whole'), join(folder, 'old')]
  await new Trainer({ ...RUN, data, run: whole }).run()
  await new Trainer({ ...RUN, data, run: old, stopAtStep: 5 }).run()
  const path = join(old, 'config.json')
  const config = JSON.parse(readFileSync(path, 'utf8')) as {
    options: Record<string, unknown>
    checksum?: string
  }
  delete config.options['sampling']
  delete config.options['prefetch']
  delete config.checksum
  writeFileSync(path, JSON.stringify(config))
  await new Trainer({ run: old, resume: true, sampling: 'random' }).run()
  t.deepEqual(losses(old), losses(whole))
})

test('an invalid mixture is a coded error', async (t) => {
  const { folder, mixture } = await sources(t)
  const run = join(folder, 'run')
  t.throws(() => new Trainer({ ...RUN, mixture: ['data/web'], run }), { message: /DIR=WEIGHT/ })
  await rejectsWith(t, 'ERR_USAGE', () => new Trainer({ ...RUN, mixture, data: folder, run }).run())
  await rejectsWith(t, 'ERR_NOT_FOUND', () =>
    new Trainer({ ...RUN, mixture: ['none=1'], run }).run(),
  )
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    new Trainer({ ...RUN, mixture: [`${join(folder, 'a_chunks')}=0`], run }).run(),
  )
})
