/** Checkpoints that are written while training goes on, and the best of them. */
import { existsSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { AdamW, Checkpoint, KindlingError, Snapshot, Trainer, Transformer } from '../src'
import { CheckpointWriter, type CheckpointSource } from '../src/training/checkpoint-writer'
import { loadRun } from '../src/training/load-run'
import { RunCheckpoints } from '../src/training/run-checkpoints'
import { RunFolder } from '../src/training/run-folder'
import { kindling } from './command-line'
import { TINY, countingBatch, rejectsWith, temporaryFolder, writeCorpus } from './helpers'

const STATE = { lossSum: 0, lossCount: 0, elapsedS: 0 }
const SMALL = {
  ...{ dModel: 16, numHeads: 4, dFf: 24, numLayers: 1, seqLength: 8, batchSize: 2, vocabSize: 280 },
  ...{ maxSteps: 12, logInterval: 1, saveInterval: 2, sampleInterval: 0, evalInterval: 2 },
  ...{ device: 'cpu', threads: 1, keep: 1 },
}

/** Returns what a writer saves and where: a small model, and a folder without a run. */
function source(run: string, more: Partial<CheckpointSource> = {}): CheckpointSource {
  const model = new Transformer(TINY)
  writeFileSync(join(run, 'metrics.jsonl'), '')
  return {
    ...{ folder: new RunFolder(run), model, optimizer: new AdamW(model) },
    ...{ retention: { keep: 9, keepEvery: 0 }, onSaved: () => {} },
    ...more,
  }
}

/** Returns a snapshot whose write ends when the test says so. */
function heldSnapshot(): {
  snapshot: Snapshot
  end: (error?: Error) => void
  begun: () => boolean
} {
  let end: (error?: Error) => void = () => {}
  let begun = false
  const written = new Promise<void>((resolve, reject) => {
    end = (error) => (error ? reject(error) : resolve())
  })
  const write = async (): Promise<void> => {
    begun = true
    return written
  }
  const snapshot = Object.assign(Object.create(Snapshot.prototype) as Snapshot, { write })
  return { snapshot, end: (error) => end(error), begun: () => begun }
}

async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
}

test('a snapshot equals a save made at the same time, byte for byte, whatever is trained since', async (t) => {
  const folder = temporaryFolder(t)
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  const train = async (): Promise<void> => {
    await model.forwardBackward(countingBatch())
    await optimizer.step({ lr: 1e-2 })
  }
  await train()
  const [saved, written] = [join(folder, 'saved'), join(folder, 'written')]
  await Checkpoint.save(saved, model, optimizer, 1, { note: 'a' })
  const snapshot = (await Checkpoint.snapshot(model, optimizer, 1, { note: 'a' }))!
  const writing = snapshot.write(written)
  await train()
  await writing
  for (const name of readdirSync(saved)) {
    const [a, b] = [saved, written].map((path) => readFileSync(join(path, name)))
    t.true(a!.equals(b!), name)
  }
  await rejectsWith(t, 'ERR_CLOSED', () => snapshot.write(written))
  const closed = (await Checkpoint.snapshot(model, optimizer, 1))!
  closed.close()
  await rejectsWith(t, 'ERR_CLOSED', () => closed.write(written))
})

test('state.json keeps every bit of the numbers it is given', async (t) => {
  const path = join(temporaryFolder(t), 'checkpoint')
  const model = new Transformer(TINY)
  const numbers = Array.from({ length: 2_000 }, (_, i) => Math.sin(i) * 10 ** ((i % 40) - 20))
  await Checkpoint.save(path, model, new AdamW(model), 1, { numbers })
  const text = readFileSync(join(path, 'state.json'), 'utf8')
  t.deepEqual((JSON.parse(text) as { run: { numbers: number[] } }).run.numbers, numbers)
  t.regex(text, /\n {4}"numbers": \[\n/)
})

test('latest moves when a checkpoint is written, and the next save waits for that', async (t) => {
  const run = temporaryFolder(t)
  const held = [heldSnapshot(), heldSnapshot()]
  const given = [...held]
  const saved: number[] = []
  const writer = new CheckpointWriter(
    source(run, {
      takeSnapshot: async () => given.shift()!.snapshot,
      onSaved: (step) => saved.push(step),
    }),
  )
  const { checkpoints } = new RunFolder(run)
  await writer.save(1, STATE)
  t.true(held[0]!.begun())
  const second = writer.save(2, STATE)
  await turns()
  t.is(checkpoints.latestStep(), null)
  t.is(given.length, 1, 'the second copy is taken after the first is written')
  held[0]!.end()
  await second
  t.is(checkpoints.latestStep(), 1)
  t.deepEqual(saved, [1])
  held[1]!.end()
  await writer.finish()
  t.is(checkpoints.latestStep(), 2)
  t.deepEqual(saved, [1, 2])
})

test('a failed write is reported once, at the next check, save or finish', async (t) => {
  const run = temporaryFolder(t)
  const failing = async (): Promise<Snapshot> => {
    const { snapshot, end } = heldSnapshot()
    end(new KindlingError('ERR_DISK_FULL', 'full'))
    return snapshot
  }
  const writer = new CheckpointWriter(source(run, { takeSnapshot: failing }))
  await writer.save(1, STATE)
  await writer.settle()
  t.is(t.throws(() => writer.check(), { instanceOf: KindlingError })?.code, 'ERR_DISK_FULL')
  writer.check()
  await writer.save(2, STATE)
  await rejectsWith(t, 'ERR_DISK_FULL', () => writer.save(3, STATE))
  await writer.save(4, STATE)
  await rejectsWith(t, 'ERR_DISK_FULL', () => writer.finish())
  t.is(new RunFolder(run).checkpoints.latestStep(), null)
})

test('without memory for a copy, the save itself waits for the file', async (t) => {
  const run = temporaryFolder(t)
  const writer = new CheckpointWriter(source(run, { takeSnapshot: async () => null }))
  await writer.save(5, STATE)
  const { checkpoints } = new RunFolder(run)
  t.is(checkpoints.latestStep(), 5)
  t.true(existsSync(join(checkpoints.path(5), 'state.json')))
})

test('a run whose checkpoint cannot be written ends with that error, and is unlocked', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  const options = { ...SMALL, corpus: writeCorpus(folder), dataDir: folder, run, maxSteps: 5_000 }
  const trainer = new Trainer(options)
  trainer.once('checkpoint', () => {
    renameSync(join(run, 'checkpoints'), join(run, 'elsewhere'))
    writeFileSync(join(run, 'checkpoints'), '')
  })
  await t.throwsAsync(trainer.run(), { instanceOf: KindlingError, message: /checkpoints/ })
  t.false(existsSync(join(run, 'lock')))
})

test('best names the checkpoint with the lowest validation loss, and keep spares it', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  // A rate at which the loss goes up and down.
  const options = { ...SMALL, corpus, dataDir: folder, lr: 0.3, lrMin: 0.3, evalTokens: 64 }
  const whole = join(folder, 'whole')
  const { best } = await new Trainer({ ...options, run: whole }).run()
  const evaluated = readFileSync(join(whole, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { step: number; val_loss?: number })
    .filter((line) => line.val_loss !== undefined)
  const lowest = Math.min(...evaluated.map((line) => line.val_loss!))
  const { step } = evaluated.find((line) => line.val_loss === lowest)!
  t.true(step < 12, 'the last step is the best: this tests nothing')
  t.deepEqual(best, { step, valLoss: lowest })
  const names = [step, 12].map((saved) => `step-${String(saved).padStart(8, '0')}`)
  t.deepEqual(readdirSync(join(whole, 'checkpoints')).sort(), names)
  t.is(readFileSync(join(whole, 'best'), 'utf8'), `${names[0]}\n`)
  t.is((await loadRun({ checkpoint: join(whole, 'best') })).step, step)
  t.is((await loadRun({ checkpoint: join(whole, 'latest') })).step, 12)

  const parts = join(folder, 'parts')
  await new Trainer({ ...options, run: parts, stopAtStep: 3 }).run()
  for (const stopAtStep of [5, 9, 12]) {
    await new Trainer({ run: parts, resume: true, stopAtStep }).run()
  }
  t.is(readFileSync(join(parts, 'best'), 'utf8'), `${names[0]}\n`)
  t.deepEqual(readdirSync(join(parts, 'checkpoints')).sort(), names)
})

test('best is restored by a resume, and forgotten if its checkpoint is gone', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  const options = { ...SMALL, corpus: writeCorpus(folder), dataDir: folder, run, keep: 9 }
  const { best } = await new Trainer({ ...options, stopAtStep: 6 }).run()
  const { checkpoints } = new RunFolder(run)
  writeFileSync(join(run, 'best'), 'step-00000002\n')
  const again = await new Trainer({ run, resume: true, stopAtStep: 6 }).run()
  t.deepEqual(again.best, best)
  t.is(readFileSync(join(run, 'best'), 'utf8'), `step-0000000${best!.step}\n`)
  if (best!.step === 6) await new Trainer({ run, resume: true, stopAtStep: 7 }).run()
  renameSync(checkpoints.path(best!.step), join(folder, 'gone'))
  const forgotten = await new Trainer({ run, resume: true, stopAtStep: 7 }).run()
  t.is(forgotten.best, null)
  t.false(existsSync(join(run, 'best')))
  await rejectsWith(t, 'ERR_NOT_FOUND', () => loadRun({ checkpoint: join(run, 'best') }))
})

test('generate takes --checkpoint RUN/best', async (t) => {
  const folder = temporaryFolder(t)
  const run = join(folder, 'run')
  await new Trainer({ ...SMALL, corpus: writeCorpus(folder), dataDir: folder, run }).run()
  const best = ['--checkpoint', join(run, 'best'), '--prompt', 'a', '--max-tokens', '2']
  const { code, stderr } = await kindling(['generate', ...best])
  t.is(code, 0, stderr)
  const { code: refused, stderr: why } = await kindling([
    ...['generate', '--checkpoint', join(folder, 'best'), '--prompt', 'a'],
  ])
  t.is(refused, 1)
  t.regex(why, /^ERR_NOT_FOUND: .*best does not exist/m)
})

test('checkpoints that are neither new nor the best are removed', async (t) => {
  const run = temporaryFolder(t)
  const checkpoints = new RunCheckpoints(run)
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  for (const step of [1, 2, 3, 4]) {
    await Checkpoint.save(checkpoints.path(step), model, optimizer, step)
  }
  await checkpoints.setLatest(4, { keep: 1, keepEvery: 0, best: 2 })
  t.deepEqual(await checkpoints.steps(), [2, 4])
  await checkpoints.setLatest(4, { keep: 1, keepEvery: 0 })
  t.deepEqual(await checkpoints.steps(), [4])
  t.false(existsSync(join(run, 'best')))
})
