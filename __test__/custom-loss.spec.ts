/** Custom losses, frozen parameters, and the training loop as an iterator. */
import { join } from 'node:path'
import test from 'ava'
import { AdamW, Checkpoint, Sgd, TokenStore, Tokenizer, Transformer, train } from '../src'
import type { TensorRecord, TrainLoopOptions } from '../src'
import { TINY, countingBatch, rejectsWith, temporaryFolder, writeCorpus } from './helpers'

/** Every option that Llama, Mistral and Qwen models need. */
const FAMILY = {
  ...TINY,
  numKvHeads: 2,
  headSize: 6,
  normEps: 1e-6,
  qkNorm: true,
  qkvBias: true,
  tieEmbeddings: true,
  ropeScaling: {
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositionEmbeddings: 16,
  },
}

/** Returns the gradient of mean cross-entropy with respect to the logits. */
function softmaxCrossEntropyGradient(logits: Float32Array, targets: number[]): Float32Array {
  const v = logits.length / targets.length
  return logits.map((_, i) => {
    const row = logits.subarray(i - (i % v), i - (i % v) + v)
    const largest = Math.max(...row)
    const sum = row.reduce((total, x) => total + Math.exp(x - largest), 0)
    const hit = i % v === targets[Math.floor(i / v)] ? 1 : 0
    return (Math.exp(logits[i]! - largest) / sum - hit) / targets.length
  })
}

function largestDifference(a: TensorRecord, b: TensorRecord): number {
  let largest = 0
  for (const [name, { data }] of Object.entries(a)) {
    const scale = Math.max(...data.map(Math.abs), 1e-12)
    data.forEach((x, i) => (largest = Math.max(largest, Math.abs(x - b[name]!.data[i]!) / scale)))
  }
  return largest
}

test('backward of softmax cross-entropy gives the gradients of forwardBackward', async (t) => {
  for (const options of [TINY, FAMILY, { ...FAMILY, recompute: true }]) {
    const model = new Transformer(options)
    const { x, y } = countingBatch(2, 8)
    await model.forwardBackward({ x, y })
    const expected = await model.gradients()
    await model.zeroGradients()
    const ids = Uint32Array.from(x.flat())
    const logits = await model.forward(ids, { batchSize: 2 })
    t.is(logits.length, ids.length * 64)
    t.deepEqual(logits.subarray(0, 8 * 64), await model.logits(ids.subarray(0, 8)))
    await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => model.backward(logits))
    await model.forward(ids, { batchSize: 2 })
    await model.backward(softmaxCrossEntropyGradient(logits, y.flat()))
    t.true(largestDifference(expected, await model.gradients()) < 1e-4)
    const optimizer = new AdamW(model)
    await optimizer.clipGradNorm(1)
    const before = await model.loss({ x, y })
    await optimizer.step({ lr: 1e-2 })
    t.true((await model.loss({ x, y })) < before)
  }
})

test('forward and backward refuse what does not fit', async (t) => {
  const model = new Transformer(TINY)
  const ids = Uint32Array.from([1, 2, 3])
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => model.backward(new Float32Array(3)))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => model.forward(ids, { batchSize: 2 }))
  await rejectsWith(t, 'ERR_TOKEN_OUT_OF_RANGE', () => model.forward(Uint32Array.from([64])))
  await model.forward(ids)
  await rejectsWith(t, 'ERR_SHAPE_MISMATCH', () => model.backward(new Float32Array(3)))
  await model.backward(new Float32Array(3 * 64))
})

test('frozen parameters keep their weights, without gradient and decay, until unfrozen', async (t) => {
  const model = new Transformer(FAMILY)
  const frozen = [...model.freeze('token_embedding*'), ...model.freeze('*.0.*.q_proj*')]
  t.is(frozen.length, 3)
  t.throws(() => model.freeze('nothing'), { code: 'ERR_INVALID_ARGUMENT' })
  const optimizer = new AdamW(model, { weightDecay: 0.5 })
  const before = await model.stateDict()
  await model.forwardBackward(countingBatch())
  const gradients = await model.gradients()
  await optimizer.step({ lr: 1e-2 })
  const after = await model.stateDict()
  for (const name of Object.keys(before)) {
    const isZero = gradients[name]!.data.every((g) => g === 0)
    t.is(isZero, frozen.includes(name), name)
    const isSame = after[name]!.data.every((w, i) => w === before[name]!.data[i])
    t.is(isSame, frozen.includes(name), name)
  }
  t.is(model.unfreeze().length, Object.keys(before).length)
  await model.forwardBackward(countingBatch())
  await optimizer.step({ lr: 1e-2 })
  const later = await model.stateDict()
  t.notDeepEqual(
    later['token_embedding.embedding_matrix'],
    before['token_embedding.embedding_matrix'],
  )
})

async function smallStore(folder: string): Promise<TokenStore> {
  const corpus = writeCorpus(folder)
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 300, specialTokens: [] })
  return TokenStore.encode([corpus], tokenizer, join(folder, 'corpus_chunks'))
}

test('train yields the losses of a hand-written loop, and continues from a checkpoint', async (t) => {
  const folder = temporaryFolder(t)
  const store = await smallStore(folder)
  const options = { ...FAMILY, vocabSize: 300, seed: 2 }
  const schedule = (step: number): number => 1e-2 / step
  const shape = { batchSize: 3, seqLength: 12, seed: 4 }

  const model = new Transformer(options)
  const optimizer = new AdamW(model)
  const expected: number[] = []
  for (let step = 1; step <= 6; step++) {
    const { loss } = await model.forwardBackward(store.batch({ ...shape, step }))
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: schedule(step) })
    expected.push(loss)
  }

  const first = new Transformer(options)
  const start = { model: first, optimizer: new AdamW(first), store, schedule, ...shape }
  const losses: (number | null)[] = []
  for await (const { step, loss, lr, gradNorm } of train({ ...start, steps: 100 })) {
    losses.push(loss)
    t.is(lr, schedule(step))
    t.true(gradNorm! > 0)
    if (step === 3) break
  }
  const path = join(folder, 'checkpoint')
  await Checkpoint.save(path, first, start.optimizer, 3)
  const second = new Transformer(options)
  const again = { ...start, model: second, optimizer: new AdamW(second) }
  const firstStep = (await Checkpoint.load(path, second, again.optimizer)) + 1
  for await (const { loss } of train({ ...again, firstStep, steps: 6 })) losses.push(loss)
  t.deepEqual(losses, expected)
  t.deepEqual(await second.stateDict(), await model.stateDict())
})

test('train accumulates batches, reads only where asked, and can be cancelled', async (t) => {
  const store = await smallStore(temporaryFolder(t))
  const model = new Transformer({ ...TINY, vocabSize: 300 })
  const optimizer = new Sgd(model, { lr: 1e-2 })
  const controller = new AbortController()
  const options: TrainLoopOptions = {
    ...{ model, optimizer, store, batchSize: 2, accumulate: 2 },
    ...{ readInterval: 2, signal: controller.signal },
  }
  const read: boolean[] = []
  await rejectsWith(t, 'ERR_CANCELLED', async () => {
    for await (const { step, loss, gradNorm, lr } of train(options)) {
      read.push(loss !== null && gradNorm !== null)
      t.is(lr, null)
      if (step === 4) controller.abort()
    }
  })
  t.deepEqual(read, [false, true, false, true])
  const wrong = { ...options, steps: -1 }
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => train(wrong).next())
})
