/** Checkpoints: exact resumption, atomic replacement, and coded errors. */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { AdamW, Checkpoint, type Optimizer, Sgd, Transformer } from '../src'
import { TINY, countingBatch, rejectsWith, temporaryFolder } from './helpers'

async function train(model: Transformer, optimizer: Optimizer, steps: number): Promise<void> {
  for (let step = 0; step < steps; step++) {
    await model.forwardBackward(countingBatch())
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: 1e-2 })
  }
}

for (const [name, make] of [
  ['AdamW', (model: Transformer): Optimizer => new AdamW(model)],
  ['Sgd', (model: Transformer): Optimizer => new Sgd(model)],
] as const) {
  test(`${name} resumes from a checkpoint bit for bit`, async (t) => {
    const path = join(temporaryFolder(t), 'step-00000003')
    const model = new Transformer(TINY)
    const optimizer = make(model)
    await train(model, optimizer, 3)
    await Checkpoint.save(path, model, optimizer, 3)
    await train(model, optimizer, 3)
    const resumed = new Transformer({ ...TINY, seed: 9 })
    const resumedOptimizer = make(resumed)
    t.is(await Checkpoint.load(path, resumed, resumedOptimizer), 3)
    await train(resumed, resumedOptimizer, 3)
    t.deepEqual(await resumed.stateDict(), await model.stateDict())
  })
}

test('a checkpoint is two safetensors files and state.json, replaced as a whole', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'checkpoint')
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  await Checkpoint.save(path, model, optimizer, 0)
  await train(model, optimizer, 1)
  await Checkpoint.save(path, model, optimizer, 1, { note: 'kept' })
  t.deepEqual(readdirSync(path).sort(), [
    'model.safetensors',
    'optimizer.safetensors',
    'state.json',
  ])
  t.deepEqual(readdirSync(folder), ['checkpoint'])
  const state = JSON.parse(readFileSync(join(path, 'state.json'), 'utf8')) as Record<
    string,
    unknown
  >
  t.is(state['iteration'], 1)
  t.is(typeof state['format_version'], 'number')
  t.true(JSON.stringify(state).includes('kept'))
})

test('a checkpoint loads without an optimizer', async (t) => {
  const path = join(temporaryFolder(t), 'checkpoint')
  const model = new Transformer(TINY)
  await Checkpoint.save(path, model, new AdamW(model), 7)
  const other = new Transformer({ ...TINY, seed: 5 })
  t.is(await Checkpoint.load(path, other), 7)
  t.deepEqual(await other.stateDict(), await model.stateDict())
})

test('a checkpoint of another shape is rejected by tensor and changes nothing', async (t) => {
  const path = join(temporaryFolder(t), 'checkpoint')
  const model = new Transformer(TINY)
  await Checkpoint.save(path, model, new AdamW(model), 1)
  const wider = new Transformer({ ...TINY, dFf: 32, numLayers: 3 })
  const before = await wider.stateDict()
  const message = await rejectsWith(t, 'ERR_CHECKPOINT_MISMATCH', () =>
    Checkpoint.load(path, wider),
  )
  t.true(message.includes('transformer_blocks.0.Feed_Forward.linear_w1.linear_matrix'))
  t.true(
    message.includes('transformer_blocks.2.final') || message.includes('transformer_blocks.2.'),
  )
  t.deepEqual(await wider.stateDict(), before)
})

test('a damaged or missing checkpoint is a coded error', async (t) => {
  const path = join(temporaryFolder(t), 'checkpoint')
  const model = new Transformer(TINY)
  await rejectsWith(t, 'ERR_NOT_FOUND', () => Checkpoint.load(path, model))
  await Checkpoint.save(path, model, new AdamW(model), 1)
  const file = join(path, 'model.safetensors')
  writeFileSync(file, readFileSync(file).subarray(0, 100))
  await rejectsWith(t, 'ERR_INVALID_CHECKPOINT', () => Checkpoint.load(path, model))
})

test('saving to a path that cannot be written is a coded error and leaves no file', async (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'file'), '')
  const model = new Transformer(TINY)
  const error = await t.throwsAsync(
    Checkpoint.save(join(folder, 'file', 'checkpoint'), model, new AdamW(model), 1),
  )
  t.regex((error as { code?: string } | undefined)?.code ?? '', /^ERR_/)
  t.false(existsSync(join(folder, 'file', 'checkpoint')))
})

test('a save overwrites only a checkpoint or an empty folder', async (t) => {
  const folder = temporaryFolder(t)
  const [notes, file] = [join(folder, 'notes'), join(folder, 'file')]
  mkdirSync(notes)
  for (const path of [join(notes, 'thesis.txt'), file]) writeFileSync(path, 'precious')
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  const snapshot = (await Checkpoint.snapshot(model, optimizer, 1))!
  for (const path of [folder, notes, file]) {
    await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => Checkpoint.save(path, model, optimizer, 1))
    await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => snapshot.write(path))
  }
  t.is(readFileSync(join(notes, 'thesis.txt'), 'utf8'), 'precious')
  t.is(readFileSync(file, 'utf8'), 'precious')
  const empty = join(folder, 'empty')
  mkdirSync(empty)
  await snapshot.write(empty)
  await Checkpoint.save(empty, model, optimizer, 2)
  t.is(await Checkpoint.load(empty, model), 2)
})

test('an optimizer of another model is rejected', async (t) => {
  const path = join(temporaryFolder(t), 'checkpoint')
  const [model, other] = [new Transformer(TINY), new Transformer(TINY)]
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    Checkpoint.save(path, model, new AdamW(other), 1),
  )
})
