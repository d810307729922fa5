/** Accounting, against parameters counted in a real model and sums worked out by hand. */
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

test('the parameters are those of a real model, grouped heads, ties and biases included', (t) => {
  for (const more of [
    {},
    { numKvHeads: 2 },
    { tieEmbeddings: true },
    { qkvBias: true, numKvHeads: 1 },
  ]) {
    const sizes = { vocabSize: 50, dModel: 24, numHeads: 4, dFf: 30, numLayers: 3, ...more }
    const model = new Transformer({ ...sizes, maxSeqLength: 8, threads: 1 })
    t.is(account({ ...sizes, context: 8 }).params.total, model.numParameters)
  }
})

test('FLOPs a token are as PyTorch is measured by, and components add up', (t) => {
  t.is(
    flopsPerToken({ vocabSize: 65, dModel: 128, dFf: 344, numLayers: 4, context: 64 }),
    4_989_696,
  )
  const { flops, params } = of('gpt2-xl', { batchSize: 1024 })
  // 48 x (8 T d^2 + 4 T^2 d + 6 T d d_ff) + 2 T d V by hand, T = 1024, d = 1600, d_ff = 6400, V = 50257.
  t.is(flops.attention_projections, 48 * 8 * 1024 * 1600 * 1600)
  t.is(flops.attention_scores, 48 * 4 * 1024 * 1024 * 1600)
  t.is(flops.feed_forward, 48 * 6 * 1024 * 1600 * 6400)
  t.is(flops.output, 2 * 1024 * 1600 * 50_257)
  t.is(
    flops.forward,
    flops.attention_projections + flops.attention_scores + flops.feed_forward + flops.output,
  )
  t.is(flops.optimizer, 17 * params.total)
  t.is(flops.step, 3 * 1024 * flops.forward + flops.optimizer)
})

test('memory, largest batch and training time follow', (t) => {
  const result = of('gpt2-xl', {
    memoryGib: 80,
    batchSize: 1024,
    steps: 400_000,
    peakTflops: 19.5,
    mfu: 0.5,
  })
  const { memory, flops, largest_batch } = result
  t.is(memory.parameters + memory.gradients + memory.optimizer, 16 * 2_127_057_600)
  const fits = (batch: number): boolean =>
    16 * 2_127_057_600 + batch * memory.activations_per_sequence <= 80 * 1024 ** 3
  t.true(fits(largest_batch) && !fits(largest_batch + 1))
  t.true(Math.abs(result.training_seconds - (flops.step * 400_000) / 9.75e12) < 1)
  t.is(of('gpt2-xl', { memoryGib: 1 }).largest_batch, 0)
  t.throws(() => of('char', { mfu: -1 }), { code: 'ERR_INVALID_ARGUMENT' })
})

test('the toy falls faster at 1e2 than at 1e1 and diverges at 1e3', (t) => {
  const [ten, hundred, thousand] = toySweep([1e1, 1e2, 1e3])
  t.is(ten!.losses.length, 10)
  // At 1e2 the first step multiplies each weight by 1 - 2 = -1: the loss stays, then falls to nothing.
  t.true(Math.abs(hundred!.losses[1]! - hundred!.losses[0]!) < 1e-4 * hundred!.losses[0]!)
  t.true(hundred!.losses[9]! < 1e-10 && ten!.losses[9]! > 1 && ten!.losses[9]! < ten!.losses[0]!)
  t.true(thousand!.diverged && !ten!.diverged && !hundred!.diverged)
})
