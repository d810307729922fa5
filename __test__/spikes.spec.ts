/** Updates that are skipped because the loss or the gradient norm spikes. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { Trainer } from '../src'
import { SpikeDetector } from '../src/training/spikes'
import { rejectsWith, temporaryFolder, writeCorpus } from './helpers'

const SMALL = {
  ...{ dModel: 16, numHeads: 4, dFf: 24, numLayers: 1, seqLength: 8, batchSize: 2, vocabSize: 280 },
  ...{ maxSteps: 90, logInterval: 5, saveInterval: 1, sampleInterval: 0, evalInterval: 0 },
  ...{ device: 'cpu', threads: 1, keep: 99, lr: 1e-2 },
}

/** Decisions of OLMo's optimizer, written by scripts/fixtures/spikes.py. */
const OLMO = JSON.parse(readFileSync(join(__dirname, 'fixtures', 'spikes.json'), 'utf8')) as {
  threshold: number
  steps: [loss: number, gradNorm: number, skipped: boolean][]
}

/** Returns the weights and moments in the checkpoint of a step. */
function weights(run: string, step: number): string {
  const folder = join(run, 'checkpoints', `step-${String(step).padStart(8, '0')}`)
  return ['model.safetensors', 'optimizer.safetensors']
    .map((name) => readFileSync(join(folder, name)).toString('base64'))
    .join()
}

function metrics(run: string): Record<string, unknown>[] {
  const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => ({
    ...(JSON.parse(line) as object),
    tokens_per_second: 0,
    elapsed_s: 0,
    memory_mib: 0,
  }))
}

test("the steps that are skipped are those of OLMo's SkipStepOptimizer", (t) => {
  let detector = new SpikeDetector(OLMO.threshold)
  const skipped = OLMO.steps.map(([loss, gradNorm], step) => {
    // Start again from the saved state, as a resumed run does.
    if (step % 50 === 0) {
      const state = JSON.parse(JSON.stringify(detector.state)) as typeof detector.state
      detector = new SpikeDetector(OLMO.threshold, state)
    }
    return detector.observe(loss, gradNorm) !== null
  })
  t.deepEqual(
    skipped,
    OLMO.steps.map(([, , skip]) => skip),
  )
  t.is(detector.state.losses.length, 128)
})

test('a spike is described with the mean and its distance from it', (t) => {
  const detector = new SpikeDetector(3)
  for (let step = 0; step < 100; step++) t.is(detector.observe(step % 2, 1 + (step % 2)), null)
  t.regex(detector.observe(9, 1)!, /^loss 9\.000 \(mean 0\.5000, 16\.9 standard deviations\)$/)
  t.regex(detector.observe(0, 5)!, /^gradient norm 5\.000 \(mean 1\.495, /)
  t.regex(detector.observe(99, 99)!, /^loss 99\.00 .*, gradient norm 99\.00 /)
})

test('a skipped update changes no weight, is reported, counted, and the same after a resume', async (t) => {
  const folder = temporaryFolder(t)
  const options = {
    ...SMALL,
    corpus: writeCorpus(folder),
    dataDir: folder,
    skipSpikes: 0.5,
    lr: 0.05,
    lrMin: 0.05,
  }
  const whole = join(folder, 'whole')
  const said: string[] = []
  const trainer = new Trainer({ ...options, run: whole })
  trainer.on('message', (text) => said.push(text))
  await trainer.run()
  const skipped = said.flatMap((text) => {
    const found = /^step (\d+): skipped the update: (loss|gradient norm) /.exec(text)
    return found ? [Number(found[1])] : []
  })
  t.true(skipped.length > 2, said.join('\n'))
  for (let step = 64; step <= 90; step++) {
    const isSame = weights(whole, step) === weights(whole, step - 1)
    t.is(isSame, skipped.includes(step), `step ${step}`)
  }
  const counted = metrics(whole).map((line) => Number(line['skipped_updates'] ?? 0))
  t.is(
    counted.reduce((sum, count) => sum + count, 0),
    skipped.length,
  )
  const parts = join(folder, 'parts')
  await new Trainer({ ...options, run: parts, stopAtStep: skipped[1]! }).run()
  await new Trainer({ run: parts, resume: true }).run()
  t.is(weights(parts, 90), weights(whole, 90))
  t.deepEqual(metrics(parts), metrics(whole))
})

test('a loss that is not finite is an error, whatever is skipped', async (t) => {
  const folder = temporaryFolder(t)
  const rates = { lr: 1e39, lrMin: 0, warmupRatio: 0, warmfixRatio: 1, saveInterval: 0 }
  const options = { ...SMALL, ...rates, skipSpikes: 6, run: join(folder, 'run') }
  const trainer = new Trainer({ ...options, corpus: writeCorpus(folder), dataDir: folder })
  await rejectsWith(t, 'ERR_NON_FINITE', () => trainer.run())
})
