/** Numbers that are not finite: a run stops before it saves them, and reports what it saw. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { AdamW, TokenStore, Trainer, Transformer, type TrainerOptions } from '../src'
import { loadRun } from '../src/training/load-run'
import { TINY, countingBatch, rejectsWith, temporaryFolder, writeCorpus } from './helpers'

const SMALL = {
  ...{ dModel: 16, numHeads: 4, dFf: 24, numLayers: 1, seqLength: 8, batchSize: 2, vocabSize: 280 },
  ...{ maxSteps: 8, logInterval: 1, sampleInterval: 0, evalInterval: 0, device: 'cpu', threads: 1 },
  ...{ warmupRatio: 0, warmfixRatio: 1 },
}

interface Report {
  step: number
  first_step: number
  losses: (number | string)[]
  op: string | null
  weight: string | null
  gradient: string | null
  stores: string[]
  batches: { step: number; micro_batch: number; windows: { store: number; start: number }[] }[]
}

/** Trains a run that has to stop; returns its folder, the error and the report. */
async function stoppedRun(
  t: ExecutionContext,
  options: TrainerOptions,
): Promise<{ run: string; message: string; report: Report }> {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  const corpus = writeCorpus(folder)
  const trainer = new Trainer({ ...SMALL, corpus, dataDir: folder, run, ...options })
  const message = await rejectsWith(t, 'ERR_NON_FINITE', () => trainer.run())
  t.true(message.includes(join(run, 'non-finite.json')), message)
  const text = readFileSync(join(run, 'non-finite.json'), 'utf8')
  return { run, message, report: JSON.parse(text) as Report }
}

test('weights that overflow at an update that is due for saving are not saved', async (t) => {
  const { run, message, report } = await stoppedRun(t, { lr: 1e39, lrMin: 0, saveInterval: 1 })
  t.regex(message, /weights are not finite after step 1 and were not saved/)
  t.is(report.step, 1)
  t.is(report.weight, 'token_embedding.embedding_matrix')
  t.is(report.gradient, null)
  t.false(existsSync(join(run, 'latest')))
  t.false(existsSync(join(run, 'checkpoints')))
  t.false(existsSync(join(run, 'lock')))
})

test('a loss that is not finite stops before the update and names the batch', async (t) => {
  const options = { lr: 1e39, lrMin: 0, saveInterval: 0, accumulate: 2, seed: 3 }
  const { run, message, report } = await stoppedRun(t, options)
  t.regex(message, /loss is not finite at step 2/)
  t.is(report.step, 2)
  t.is(report.first_step, 2)
  t.deepEqual(report.losses, ['NaN', 'NaN'])
  t.is(report.op, null)
  t.truthy(report.weight)
  t.truthy(report.gradient)
  t.deepEqual(
    report.batches.map(({ step, micro_batch, windows }) => [step, micro_batch, windows.length]),
    [
      [2, 0, 2],
      [2, 1, 2],
    ],
  )
  await rejectsWith(t, 'ERR_NOT_FOUND', () => loadRun({ run }))
})

test('the windows of the report are those of the batch', async (t) => {
  const { report } = await stoppedRun(t, { lr: 1e39, lrMin: 0, saveInterval: 0, seed: 5 })
  const store = await TokenStore.open(report.stores[0]!)
  const { x } = store.batch({ batchSize: 2, seqLength: 8, seed: 5, step: 2 })
  const windows = report.batches[0]!.windows.flatMap(({ start }) => [
    ...store.loadByRange(start, start + 8),
  ])
  t.deepEqual([...x], windows)
})

test('with detect_anomaly the run stops at the first op whose output is not finite', async (t) => {
  const options = { lr: 1e39, lrMin: 0, saveInterval: 0, detectAnomaly: true }
  const { message, report } = await stoppedRun(t, options)
  t.is(report.op, 'token_embedding output')
  t.true(message.startsWith('token_embedding output is not finite ('), message)
  t.deepEqual([report.step, report.losses], [2, []])
})

test('a model with detectAnomaly names the op whose output is not finite', async (t) => {
  const model = new Transformer({ ...TINY, detectAnomaly: true })
  await model.forwardBackward(countingBatch())
  t.is(await model.nonFiniteOp(), null)
  const state = await model.stateDict()
  const layer = TINY.numLayers - 1
  state[`transformer_blocks.${layer}.Feed_Forward.linear_w2.linear_matrix`]!.data[0] = NaN
  await model.loadStateDict(state)
  for (const readLoss of [true, false]) {
    const pass = (): Promise<unknown> =>
      readLoss
        ? model.forwardBackward(countingBatch())
        : model.forwardBackward(countingBatch(), { readLoss: false })
    const message = await rejectsWith(t, 'ERR_NON_FINITE', pass)
    const op = `transformer_blocks.${layer}.Feed_Forward linear_w2 output`
    t.true(message.startsWith(`${op} is not finite (`), message)
    t.is(await model.nonFiniteOp(), op)
  }
})

test('a model names its first tensor that is not finite', async (t) => {
  const model = new Transformer(TINY)
  t.is(await model.nonFiniteWeight(), null)
  t.is(await model.nonFiniteGradient(), null)
  const optimizer = new AdamW(model)
  await model.forwardBackward(countingBatch())
  await optimizer.step({ lr: 1e39 })
  t.is(await model.nonFiniteWeight(), 'token_embedding.embedding_matrix')
  await model.forwardBackward(countingBatch())
  t.is(typeof (await model.nonFiniteGradient()), 'string')
})
