/** `account`, against the parameters of real models and sums worked out by hand. */
import test from 'ava'
import { Transformer, account, flopsPerToken } from '../src'
import { succeed } from './command-line'
import { COURSE_SHAPES, PRESETS } from '../src/training/presets'

function of(name: string, more: object = {}): ReturnType<typeof account> {
  const p = { ...PRESETS, ...COURSE_SHAPES }[name]!
  return account({
    vocabSize: p.vocab_size,
    dModel: p.d_model,
    numHeads: p.num_heads,
    dFf: p.d_ff,
    numLayers: p.num_layers,
    context: p.context,
    ...more,
  })
}

test("gpt2-xl in the course's shape has 2,127,057,600 parameters", (t) => {
  t.is(of('gpt2-xl').params.total, 2_127_057_600)
})

test('parameters match a real model, with grouped heads, tied embeddings and biases', (t) => {
  for (const more of [
    {},
    { numKvHeads: 2 },
    { tieEmbeddings: true },
    { qkvBias: true, numKvHeads: 1 },
    { headSize: 10, numKvHeads: 2, qkvBias: true, qkNorm: true },
  ]) {
    const sizes = { vocabSize: 50, dModel: 24, numHeads: 4, dFf: 30, numLayers: 3, ...more }
    const model = new Transformer({ ...sizes, maxSeqLength: 8, threads: 1 })
    t.is(account({ ...sizes, context: 8 }).params.total, model.numParameters)
  }
})

test('FLOPs per token match the formula used for PyTorch, and components add up', (t) => {
  t.is(
    flopsPerToken({ vocabSize: 65, dModel: 128, dFf: 344, numLayers: 4, context: 64 }),
    4_989_696,
  )
  // 16 query heads and 4 key/value heads of 20: 2 d (q + kv) replaces 4 d^2, and q replaces d.
  const grouped = { numHeads: 16, numKvHeads: 4, headSize: 20 }
  t.is(
    flopsPerToken({ vocabSize: 65, dModel: 128, dFf: 344, numLayers: 4, context: 64, ...grouped }),
    6 * (4 * (2 * 128 * (320 + 80) + 3 * 128 * 344) + 128 * 65) + 6 * 4 * 64 * 320,
  )
  const { flops, params } = of('gpt2-xl', { batchSize: 1024 })
  // By hand: 48 (8 T d^2 + 4 T^2 d + 6 T d f) + 2 T d V, T = 1024, d = 1600, f = 6400, V = 50257.
  t.is(flops.attentionProjections, 48 * 8 * 1024 * 1600 * 1600)
  t.is(flops.attentionScores, 48 * 4 * 1024 * 1024 * 1600)
  t.is(flops.feedForward, 48 * 6 * 1024 * 1600 * 6400)
  t.is(flops.output, 2 * 1024 * 1600 * 50_257)
  t.is(
    flops.forward,
    flops.attentionProjections + flops.attentionScores + flops.feedForward + flops.output,
  )
  t.is(flops.optimizer, 17 * params.total)
  t.is(flops.step, 3 * 1024 * flops.forward + flops.optimizer)
})

test('memory, largest batch and training time are consistent', (t) => {
  const result = of('gpt2-xl', {
    memoryGib: 80,
    batchSize: 1024,
    steps: 400_000,
    peakTflops: 19.5,
    mfu: 0.5,
  })
  const { memory, flops, largestBatch } = result
  t.is(memory.parameters + memory.gradients + memory.optimizer, 16 * 2_127_057_600)
  t.is(memory.total, memory.parameters + memory.gradients + memory.optimizer + memory.activations)
  const fits = (batchSize: number): boolean =>
    of('gpt2-xl', { batchSize }).memory.total <= 80 * 1024 ** 3
  t.true(fits(largestBatch) && !fits(largestBatch + 1))
  t.true(Math.abs(result.trainingSeconds - (flops.step * 400_000) / 9.75e12) < 1)
  t.is(of('gpt2-xl', { memoryGib: 1 }).largestBatch, 0)
  t.throws(() => of('char', { mfu: -1 }), { code: 'ERR_INVALID_ARGUMENT' })
})

test('activations per sequence on the CPU match a measured model', (t) => {
  const sizes = { vocabSize: 512, dModel: 256, numHeads: 8, dFf: 1024, numLayers: 8, context: 256 }
  const { memory } = account(sizes)
  t.true(Math.abs(memory.activationsPerSequence / 2 ** 20 - 30.1) < 0.1)
  // The rest of `activations`: a block of 256 x 512 logits, rotation tables, and scratch memory.
  const rest = memory.activations - memory.activationsPerSequence
  t.true(rest > 4 * 256 * 512 && rest < 16 * 2 ** 20, String(rest))
  const recomputed = account({ ...sizes, recompute: true }).memory
  t.true(recomputed.activationsPerSequence < memory.activationsPerSequence / 3)
})

test('a model that cannot be built has no account', (t) => {
  const sizes = { vocabSize: 50, dModel: 25, numHeads: 4, dFf: 30, numLayers: 3, context: 8 }
  t.throws(() => account(sizes), { code: 'ERR_INVALID_CONFIG' })
})

test("FLOPs and activations match the course's own arithmetic", (t) => {
  // The course's figures for gpt2-xl at a context of 16384. Its projections lack the output
  // projection, 2 of 8.
  const { flops } = of('gpt2-xl', { context: 16_384 })
  t.is(flops.attentionProjections, (12_079_595_520_000 / 6) * 8)
  t.is(flops.attentionScores, 82_463_372_083_200)
  t.is(flops.feedForward, 48_318_382_080_000)
  t.is(flops.output, 2_634_914_201_600)
  // The course's activations of one layer with one head, which it counts in numbers of 4 bytes.
  const { courseMemory } = of('gpt2-xl', { numLayers: 1, numHeads: 1 })
  t.is(courseMemory.activationsPerSequence, 4 * 77_087_744)
  const whole = of('gpt2-xl', { batchSize: 3 })
  t.is(whole.courseMemory.total, 16 * 2_127_057_600 + 3 * whole.courseMemory.activationsPerSequence)
  const { courseMemory: m, courseLargestBatch } = of('gpt2-xl')
  t.is(
    courseLargestBatch,
    Math.floor((80 * 1024 ** 3 - 16 * 2_127_057_600) / m.activationsPerSequence),
  )
  t.true(whole.memory.activationsPerSequence < m.activationsPerSequence / 2)
})

test('a measured speed gives the MFU and the time', (t) => {
  const sizes = { batchSize: 4, steps: 100, peakTflops: 10 }
  const { mfu, trainingSeconds, flops } = of('gpt2-small', { ...sizes, tokensPerSecond: 2048 })
  t.is(trainingSeconds, (100 * 4 * 1024) / 2048)
  t.is(mfu, (2048 * flops.perToken) / 10e12)
  const planned = of('gpt2-small', { ...sizes, mfu: 0.25 })
  t.is(planned.mfu, 0.25)
  t.true(Math.abs(planned.tokensPerSecond * planned.trainingSeconds - 100 * 4 * 1024) < 1e-6)
})

test("the table of the course's shapes fits 80 columns; its shares add up", async (t) => {
  const { stdout } = await succeed(t, ['account', '--course'])
  const lines = stdout.trimEnd().split('\n')
  t.true(
    lines.every((line) => line.length <= 80),
    stdout,
  )
  t.regex(lines[0]!, /gpt2-small +gpt2-medium +gpt2-large +gpt2-xl +gpt2-xl/)
  // By the course's figures it is 56.7%, of a total without the output projection.
  t.regex(stdout, /attention_scores .* 55\.2%$/m)
  const { json } = await succeed(t, ['account', '--course', '--json'])
  t.deepEqual(
    json.map(({ preset, context }) => [preset, context]),
    [...Object.keys(COURSE_SHAPES).map((name) => [name, 1024]), ['gpt2-xl', 16_384]],
  )
  const one = await succeed(t, ['account', '--preset', 'gpt2-xl', '--context', '16384'])
  t.regex(one.stdout, /attention_scores +82\.5T +55\.2%/)
  t.true(
    one.stdout.split('\n').every((line) => line.length <= 80),
    one.stdout,
  )
})
