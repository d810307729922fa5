/** `account`, against the parameters of real models and sums worked out by hand. */
import test from 'ava'
import { Transformer, account, flopsPerToken } from '../src'
import { COURSE_SHAPES, PRESETS } from '../src/training/presets'
import { toySweep } from '../src/cli/sweep'

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
  // 16 heads of 20, 4 of them for keys: 2 d (q + kv) in place of 4 d^2, q in place of d.
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

test('the toy problem falls faster at 1e2 than at 1e1, and diverges at 1e3', (t) => {
  const [ten, hundred, thousand] = toySweep([1e1, 1e2, 1e3])
  t.is(ten!.losses.length, 10)
  // At 1e2 the first step multiplies each weight by 1 - 2 = -1: the loss stays, then vanishes.
  t.true(Math.abs(hundred!.losses[1]! - hundred!.losses[0]!) < 1e-4 * hundred!.losses[0]!)
  t.true(hundred!.losses[9]! < 1e-10 && ten!.losses[9]! > 1 && ten!.losses[9]! < ten!.losses[0]!)
  t.true(thousand!.diverged && !ten!.diverged && !hundred!.diverged)
})
