/** The library's public API: training, concurrent calls, invalid input. */
import { join } from 'node:path'
import test from 'ava'
import {
  AdamW,
  KindlingError,
  Sgd,
  TokenStore,
  Tokenizer,
  Transformer,
  cosineSchedule,
  generate,
} from '../src'
import type { TensorRecord, TransformerOptions } from '../src'
import { TINY, countingBatch, rejectsWith, temporaryFolder, writeCorpus } from './helpers'

test('the training script of the README lowers the loss and generates text', async (t) => {
  const folder = temporaryFolder(t)
  const corpus = writeCorpus(folder)
  const tokenizer = await Tokenizer.train([corpus], {
    vocabSize: 300,
    specialTokens: ['<|endoftext|>'],
  })
  const store = await TokenStore.encode([corpus], tokenizer, join(folder, 'data', 'corpus_chunks'))
  const model = new Transformer({
    ...TINY,
    vocabSize: 300,
    maxSeqLength: 32,
    device: 'cpu',
    seed: 1,
  })
  const optimizer = new AdamW(model, { weightDecay: 0.1, betas: [0.9, 0.95] })
  const schedule = cosineSchedule({ lrMax: 1e-2, lrMin: 1e-3, warmupSteps: 5, cosineSteps: 40 })
  const losses: number[] = []
  for (let step = 1; step <= 40; step++) {
    const { loss } = await model.forwardBackward(
      store.batch({ batchSize: 4, seqLength: 32, seed: 1, step }),
    )
    const gradNorm = await optimizer.clipGradNorm(1.0)
    t.true(gradNorm > 0)
    await optimizer.step({ lr: schedule(step) })
    losses.push(loss)
  }
  t.true(losses.at(-1)! < losses[0]! - 1, `from ${losses[0]} to ${losses.at(-1)}`)
  let text = ''
  const options = { temperature: 0.8, topP: 0.9, maxTokens: 20, seed: 1 }
  for await (const piece of generate(model, tokenizer, 'the whale', options)) text += piece
  t.true(text.startsWith('the whale'))
  t.true(text.length > 'the whale'.length)
})

test('the loss of an untrained model is close to log(vocabSize)', async (t) => {
  const model = new Transformer(TINY)
  const loss = await model.loss(countingBatch())
  t.true(Math.abs(loss - Math.log(64)) < 1, `${loss}`)
})

test('a batch can be rows of numbers, flat arrays or rows of typed arrays', async (t) => {
  const model = new Transformer(TINY)
  const { x, y } = countingBatch(2, 8)
  const expected = await model.loss({ x, y })
  t.is(
    await model.loss({ x: Int32Array.from(x.flat()), y: Int32Array.from(y.flat()), batchSize: 2 }),
    expected,
  )
  t.is(await model.loss({ x: x.map((row) => Uint32Array.from(row)), y }), expected)
})

test('targets of -100 are ignored', async (t) => {
  const model = new Transformer(TINY)
  const { x, y } = countingBatch(1, 4)
  const masked = [[y[0]![0]!, y[0]![1]!, -100, -100]]
  const short = await model.loss({ x: [x[0]!.slice(0, 2)], y: [y[0]!.slice(0, 2)] })
  t.true(Math.abs((await model.loss({ x, y: masked })) - short) < 1e-5)
})

test('forwardBackward accumulates gradients and step resets them', async (t) => {
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  await model.forwardBackward(countingBatch())
  const once = await model.gradients()
  await model.forwardBackward(countingBatch())
  const twice = await model.gradients()
  t.deepEqual(Object.keys(once), Object.keys(await model.stateDict()))
  for (const [name, { shape, data }] of Object.entries(once)) {
    t.is(
      data.length,
      shape.reduce((all, d) => all * d, 1),
    )
    t.true(
      data.some((g) => g !== 0),
      `${name} received no gradient`,
    )
    data.forEach((g, i) =>
      t.true(Math.abs(twice[name]!.data[i]! - 2 * g) <= 1e-5 * Math.max(1, Math.abs(g)), name),
    )
  }
  await optimizer.step({ lr: 1e-3 })
  for (const { data } of Object.values(await model.gradients())) t.true(data.every((g) => g === 0))
})

test('scale multiplies the gradients but not the loss', async (t) => {
  const model = new Transformer(TINY)
  const { loss } = await model.forwardBackward(countingBatch())
  const whole = (await model.gradients())['final_norm.g']!.data
  await model.zeroGradients()
  t.is((await model.forwardBackward(countingBatch(), { scale: 0.5 })).loss, loss)
  const half = (await model.gradients())['final_norm.g']!.data
  whole.forEach((g, i) => t.true(Math.abs(half[i]! - g / 2) < 1e-6))
})

test('readLoss: false and read: false return null and change nothing else', async (t) => {
  const weights = async (read: boolean): Promise<Float32Array> => {
    const model = new Transformer(TINY)
    const optimizer = new AdamW(model)
    const { loss } = await model.forwardBackward(countingBatch(), { readLoss: read })
    const norm = await optimizer.clipGradNorm(0.1, { read })
    t.is(loss === null, !read)
    t.is(norm === null, !read)
    await optimizer.step({ lr: 1e-2 })
    return (await model.stateDict())['token_embedding.embedding_matrix']!.data
  }
  t.deepEqual(await weights(false), await weights(true))
})

test('clipGradNorm(0) returns the norm and leaves the gradients as they are', async (t) => {
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  await model.forwardBackward(countingBatch())
  const before = await model.gradients()
  t.true((await optimizer.clipGradNorm(0)) > 0)
  t.is(await optimizer.clipGradNorm(0, { read: false }), null)
  t.deepEqual(await model.gradients(), before)
})

test('the initial weights depend on the seed alone', async (t) => {
  const first = async (seed: number) =>
    await new Transformer({ ...TINY, seed }).logits(Uint32Array.of(1, 2))
  t.deepEqual(await first(3), await first(3))
  t.notDeepEqual(await first(3), await first(4))
})

test('logits have one row per token, unaffected by later tokens', async (t) => {
  const model = new Transformer(TINY)
  const short = await model.logits(Uint32Array.of(1, 2))
  const long = await model.logits(Uint32Array.of(1, 2, 3))
  t.is(long.length, 3 * 64)
  short.forEach((score, i) => t.true(Math.abs(score - long[i]!) < 1e-5))
})

test('stateDict has the names and shapes of checkpoint files', async (t) => {
  const model = new Transformer({ ...TINY, numLayers: 1, numKvHeads: 2 })
  const shapes = Object.fromEntries(
    Object.entries(await model.stateDict()).map(([name, { shape }]) => [name, shape]),
  )
  t.deepEqual(shapes, {
    'token_embedding.embedding_matrix': [64, 16],
    'transformer_blocks.0.RMSNorm_Attn.g': [16],
    'transformer_blocks.0.Multihead_Attn.q_proj.linear_matrix': [16, 16],
    'transformer_blocks.0.Multihead_Attn.k_proj.linear_matrix': [16, 8],
    'transformer_blocks.0.Multihead_Attn.v_proj.linear_matrix': [16, 8],
    'transformer_blocks.0.Multihead_Attn.o_proj.linear_matrix': [16, 16],
    'transformer_blocks.0.RMSNorm_FF.g': [16],
    'transformer_blocks.0.Feed_Forward.linear_w1.linear_matrix': [16, 24],
    'transformer_blocks.0.Feed_Forward.linear_w3.linear_matrix': [16, 24],
    'transformer_blocks.0.Feed_Forward.linear_w2.linear_matrix': [24, 16],
    'final_norm.g': [16],
    'final_layer.linear_matrix': [16, 64],
  })
  const count = Object.values(shapes).reduce(
    (sum, shape) => sum + shape.reduce((all, d) => all * d, 1),
    0,
  )
  t.is(model.numParameters, count)
})

test('loadStateDict copies a model, and names every tensor that does not fit', async (t) => {
  const from = new Transformer({ ...TINY, seed: 1 })
  const into = new Transformer({ ...TINY, seed: 2 })
  const state = await from.stateDict()
  await into.loadStateDict(state)
  t.deepEqual(await into.logits(Uint32Array.of(5)), await from.logits(Uint32Array.of(5)))
  const { ['final_norm.g']: _, ...rest } = state
  const wrong: TensorRecord = {
    ...rest,
    stranger: { shape: [1], data: new Float32Array(1) },
    'transformer_blocks.0.RMSNorm_FF.g': { shape: [3], data: new Float32Array(3) },
  }
  const message = await rejectsWith(t, 'ERR_CHECKPOINT_MISMATCH', () => into.loadStateDict(wrong))
  for (const name of ['final_norm.g', 'stranger', 'transformer_blocks.0.RMSNorm_FF.g'])
    t.true(message.includes(name))
  t.deepEqual(await into.logits(Uint32Array.of(5)), await from.logits(Uint32Array.of(5)))
})

test('concurrent calls on one model are ERR_BUSY and leave it usable', async (t) => {
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  const first = model.forwardBackward(countingBatch())
  await rejectsWith(t, 'ERR_BUSY', () => model.loss(countingBatch()))
  await rejectsWith(t, 'ERR_BUSY', () => optimizer.step({ lr: 1e-3 }))
  t.true((await first).loss > 0)
  t.true((await model.loss(countingBatch())) > 0)
})

test('two models can compute at the same time', async (t) => {
  const models = [new Transformer(TINY), new Transformer(TINY)]
  const [one, two] = await Promise.all(models.map((model) => model.loss(countingBatch())))
  t.is(one, two)
})

test('long calls do not block the event loop', async (t) => {
  const model = new Transformer({ ...TINY, dModel: 128, dFf: 512, numLayers: 4, maxSeqLength: 128 })
  let turns = 0
  let immediate = setImmediate(function next() {
    turns++
    immediate = setImmediate(next)
  })
  await model.forwardBackward(countingBatch(16, 128))
  clearImmediate(immediate)
  t.true(turns > 0)
})

test('settings of a parameter group apply to its parameters only', async (t) => {
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model, {
    groups: [{ pattern: 'transformer_blocks.0.*', lr: 0, weightDecay: 0 }],
  })
  const before = await model.stateDict()
  await model.forwardBackward(countingBatch())
  await optimizer.step({ lr: 1e-2 })
  const after = await model.stateDict()
  for (const [name, { data }] of Object.entries(after)) {
    const moved = data.some((p, i) => p !== before[name]!.data[i])
    t.is(moved, !name.startsWith('transformer_blocks.0.'), name)
  }
})

test('Sgd updates each weight by lr / sqrt(t + 1) times its gradient', async (t) => {
  const model = new Transformer(TINY)
  const optimizer = new Sgd(model)
  for (const rate of [0.1, 0.1 / Math.sqrt(2)]) {
    await model.forwardBackward(countingBatch())
    const before = (await model.stateDict())['final_norm.g']!.data
    const gradient = (await model.gradients())['final_norm.g']!.data
    await optimizer.step({ lr: 0.1 })
    const after = (await model.stateDict())['final_norm.g']!.data
    after.forEach((p, i) => t.true(Math.abs(p - (before[i]! - rate * gradient[i]!)) < 1e-6))
  }
})

test('a non-finite gradient stops the step before any weight changes', async (t) => {
  const model = new Transformer(TINY)
  const optimizer = new AdamW(model)
  const state = await model.stateDict()
  state['final_norm.g']!.data[0] = Infinity
  await model.loadStateDict(state)
  await model
    .forwardBackward(countingBatch())
    .catch((error: KindlingError) => t.is(error.code, 'ERR_NON_FINITE'))
  await rejectsWith(t, 'ERR_NON_FINITE', async () => {
    await optimizer.clipGradNorm(1)
    await optimizer.step({ lr: 1e-3 })
  })
  t.deepEqual(await model.stateDict(), state)
})

test('calls on a closed model are ERR_CLOSED', async (t) => {
  const model = new Transformer(TINY)
  await model.loss(countingBatch())
  await model.close()
  await model.close()
  await rejectsWith(t, 'ERR_CLOSED', () => model.loss(countingBatch()))
  const working = new Transformer(TINY)
  const call = working.loss(countingBatch())
  await working.close()
  t.true((await call) > 0)
  await rejectsWith(t, 'ERR_CLOSED', () => working.loss(countingBatch()))
  const disposed = new Transformer(TINY)
  await disposed[Symbol.asyncDispose]()
  await rejectsWith(t, 'ERR_CLOSED', () => disposed.loss(countingBatch()))
})

test.serial('closing a model frees its memory', async (t) => {
  // 37.7 MB of weights in one allocation: too much for the allocator to keep.
  const sizes = { ...TINY, vocabSize: 32_768, dModel: 288, tieEmbeddings: true }
  const once = async (): Promise<void> => {
    const model = new Transformer(sizes)
    await model.loss({ x: [[1, 2]], y: [[2, 3]] })
    await model.close()
  }
  await once()
  const before = process.memoryUsage().rss
  for (let i = 0; i < 8; i++) await once()
  t.true(process.memoryUsage().rss - before < 150e6)
})

const configurations: [string, string, Partial<Record<keyof TransformerOptions, unknown>>][] = [
  ['dModel not divisible by numHeads', 'ERR_INVALID_CONFIG', { dModel: 18 }],
  ['an odd head size', 'ERR_INVALID_CONFIG', { dModel: 12 }],
  ['numHeads not divisible by numKvHeads', 'ERR_INVALID_CONFIG', { numKvHeads: 3 }],
  ['no layers', 'ERR_INVALID_CONFIG', { numLayers: 0 }],
  [
    'more parameters than fit into memory',
    'ERR_INVALID_CONFIG',
    { vocabSize: 2 ** 32 - 1, dModel: 2 ** 31 },
  ],
  ['theta NaN', 'ERR_INVALID_CONFIG', { theta: NaN }],
  ['a negative size', 'ERR_INVALID_ARGUMENT', { dFf: -8 }],
  ['a fractional size', 'ERR_INVALID_ARGUMENT', { dFf: 8.5 }],
  ['a size that is a string', 'ERR_INVALID_ARGUMENT', { vocabSize: '64' }],
  ['a missing size', 'ERR_INVALID_ARGUMENT', { vocabSize: undefined }],
  ['a negative seed', 'ERR_INVALID_ARGUMENT', { seed: -1 }],
  ['an unknown dtype', 'ERR_INVALID_ARGUMENT', { dtype: 'f64' }],
]
for (const [what, code, change] of configurations) {
  test(`a model with ${what} is ${code}`, (t) => {
    const options = { ...TINY, ...change } as unknown as TransformerOptions
    const error = t.throws(() => new Transformer(options), { instanceOf: KindlingError })
    t.is(error?.code, code)
  })
}

test('an unknown or missing device is a coded error', async (t) => {
  const on = (device: string) => async () =>
    new Transformer({ ...TINY, device }).loss(countingBatch())
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', on('tpu'))
  await rejectsWith(t, 'ERR_DEVICE_UNAVAILABLE', on('cuda:99'))
})

test('invalid batches are coded errors and leave the gradients unchanged', async (t) => {
  const model = new Transformer(TINY)
  const call = (batch: unknown) => () =>
    model.forwardBackward(batch as { x: number[]; y: number[] })
  await rejectsWith(t, 'ERR_TOKEN_OUT_OF_RANGE', call({ x: [[1, 64]], y: [[2, 3]] }))
  await rejectsWith(t, 'ERR_TOKEN_OUT_OF_RANGE', call({ x: [[1, 2]], y: [[2, 64]] }))
  const id = await rejectsWith(t, 'ERR_TOKEN_OUT_OF_RANGE', call({ x: [[1, -1]], y: [[2, 3]] }))
  t.regex(id, /id -1 at position 1/)
  const target = await rejectsWith(t, 'ERR_TOKEN_OUT_OF_RANGE', call({ x: [[1, 2]], y: [[2, -7]] }))
  t.regex(target, /id -7 at position 1/)
  await rejectsWith(t, 'ERR_SHAPE_MISMATCH', call({ x: [[1, 2]], y: [[2]] }))
  await rejectsWith(t, 'ERR_SHAPE_MISMATCH', call({ x: [[1, 2], [3]], y: [[2, 3], [4]] }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', call({ x: [[1, 2.5]], y: [[2, 3]] }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', call({ x: 'text', y: 'text' }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', call(null))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () =>
    model.forwardBackward(countingBatch(), { scale: NaN }),
  )
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => model.logits([1, 2] as unknown as Uint32Array))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => model.logits(new Uint32Array()))
  await rejectsWith(t, 'ERR_TOKEN_OUT_OF_RANGE', () => model.logits(Uint32Array.of(64)))
  const long = Array.from({ length: 17 }, () => 1)
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', call({ x: [long], y: [long] }))
  for (const { data } of Object.values(await model.gradients())) t.true(data.every((g) => g === 0))
})

test('invalid optimizer settings are ERR_INVALID_ARGUMENT', async (t) => {
  const model = new Transformer(TINY)
  for (const wrong of [
    { lr: -1 },
    { weightDecay: NaN },
    { eps: -1 },
    { betas: [0.9, 1.5] as const },
  ]) {
    const error = t.throws(() => new AdamW(model, wrong), { instanceOf: KindlingError })
    t.is(error?.code, 'ERR_INVALID_ARGUMENT', JSON.stringify(wrong))
  }
  const optimizer = new AdamW(model)
  await model.forwardBackward(countingBatch())
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => optimizer.step({ lr: NaN }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => optimizer.step({ lr: -1 }))
  await rejectsWith(t, 'ERR_INVALID_ARGUMENT', () => optimizer.clipGradNorm(-1))
})
