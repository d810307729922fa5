/**
 * `ops`: values worked out by hand, each backward pass against finite differences of its forward
 * pass, and coded errors for bad arguments.
 */
import test from 'ava'
import { KindlingError } from '../src/errors'
import { ops } from '../src/ops'

type Arrays = Record<string, Float32Array>

/** Returns numbers in [-1, 1) from a seed. */
function numbers(length: number, seed: number): Float32Array {
  let state = seed * 2654435761 + 12345
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  })
}

const f32 = (...values: number[]): Float32Array => Float32Array.from(values)

/** Step of the finite differences. Their error is near 1e-5 for the smooth functions here. */
const STEP = 1e-2
/** Largest error allowed, relative to the largest value of the gradient. */
const TOLERANCE = 2e-3

/**
 * Compares the gradients that `backward` returns with central differences of sum(forward . dout).
 */
function gradientsMatchDifferences(
  t: { true(value: boolean, message?: string): unknown },
  inputs: Arrays,
  forward: (inputs: Arrays) => Float32Array,
  backward: (inputs: Arrays, dout: Float32Array) => Arrays,
): void {
  const dout = numbers(forward(inputs).length, 99)
  const objective = (changed: Arrays): number =>
    forward(changed).reduce((sum, value, i) => sum + value * dout[i]!, 0)
  const gradients = backward(inputs, dout)
  for (const [name, values] of Object.entries(inputs)) {
    const gradient = gradients[name]!
    const scale = gradient.reduce((most, g) => Math.max(most, Math.abs(g)), 1e-3)
    for (let i = 0; i < values.length; i++) {
      const [above, below] = [STEP, -STEP].map((h) => {
        const moved = values.slice()
        moved[i]! += h
        return { at: moved[i]!, value: objective({ ...inputs, [name]: moved }) }
      }) as [{ at: number; value: number }, { at: number; value: number }]
      const difference = (above.value - below.value) / (above.at - below.at)
      t.true(
        Math.abs(difference - gradient[i]!) <= TOLERANCE * scale,
        `d${name}[${i}] is ${gradient[i]}, differences give ${difference}`,
      )
    }
  }
}

test('matmul multiplies two matrices', (t) => {
  const { out } = ops.matmul.forward({
    a: f32(1, 2, 3, 4, 5, 6),
    b: f32(1, 0, 0, 1, 1, 1),
    m: 2,
    k: 3,
    n: 2,
  })
  t.deepEqual([...out], [4, 5, 10, 11])
})

test('matmul backward matches finite differences', (t) => {
  const sizes = { m: 3, k: 5, n: 2 }
  gradientsMatchDifferences(
    t,
    { a: numbers(15, 1), b: numbers(10, 2) },
    ({ a, b }) => ops.matmul.forward({ a: a!, b: b!, ...sizes }).out,
    ({ a, b }, dout) => {
      const { da, db } = ops.matmul.backward({ dout, a: a!, b: b!, ...sizes })
      return { a: da, b: db }
    },
  )
})

test('linear takes a weight of (inputs, outputs) and adds the bias', (t) => {
  const { out } = ops.linear.forward({
    x: f32(1, 2),
    weight: f32(1, 2, 3, 10, 20, 30),
    bias: f32(0.5, 0, -0.5),
    rows: 1,
    inputs: 2,
    outputs: 3,
  })
  t.deepEqual([...out], [21.5, 42, 62.5])
})

test('linear backward matches finite differences', (t) => {
  const sizes = { rows: 3, inputs: 4, outputs: 5 }
  gradientsMatchDifferences(
    t,
    { x: numbers(12, 1), weight: numbers(20, 2), bias: numbers(5, 3) },
    ({ x, weight, bias }) =>
      ops.linear.forward({ x: x!, weight: weight!, bias: bias!, ...sizes }).out,
    ({ x, weight }, dout) => {
      const { dx, dweight, dbias } = ops.linear.backward({ dout, x: x!, weight: weight!, ...sizes })
      return { x: dx, weight: dweight, bias: dbias }
    },
  )
})

test('embedding looks up rows, and its backward sums over the occurrences of an id', (t) => {
  const sizes = { vocabSize: 3, dModel: 2 }
  const ids = Uint32Array.of(2, 0, 2)
  const { out } = ops.embedding.forward({ ids, weight: f32(1, 2, 3, 4, 5, 6), ...sizes })
  t.deepEqual([...out], [5, 6, 1, 2, 5, 6])
  const { dweight } = ops.embedding.backward({ dout: f32(1, 2, 3, 4, 5, 6), ids, ...sizes })
  t.deepEqual([...dweight], [3, 4, 0, 0, 6, 8])
})

test('rmsNorm normalizes each row to a root mean square of 1', (t) => {
  const { out, rstd } = ops.rmsNorm.forward({
    x: f32(3, 4, 6, 8),
    weight: f32(1, 2),
    width: 2,
    eps: 0,
  })
  t.true(Math.abs(rstd[0]! - 1 / Math.sqrt(12.5)) < 1e-6)
  t.true(Math.abs(out[1]! - (2 * 4) / Math.sqrt(12.5)) < 1e-6)
  t.true(Math.abs(out[0]! - out[2]!) < 1e-6)
})

test('rmsNorm backward matches finite differences', (t) => {
  gradientsMatchDifferences(
    t,
    { x: numbers(15, 1), weight: numbers(5, 2) },
    ({ x, weight }) => ops.rmsNorm.forward({ x: x!, weight: weight!, width: 5 }).out,
    ({ x, weight }, dout) => {
      const { rstd } = ops.rmsNorm.forward({ x: x!, weight: weight!, width: 5 })
      const { dx, dweight } = ops.rmsNorm.backward({ dout, x: x!, weight: weight!, rstd, width: 5 })
      return { x: dx, weight: dweight }
    },
  )
})

test('rope rotates the interleaved pair k of position p by p theta^(-2k / headSize)', (t) => {
  const { out } = ops.rope.forward({
    x: f32(1, 0, 1, 0, 1, 0, 1, 0),
    positions: 2,
    heads: 1,
    headSize: 4,
    theta: 100,
  })
  const expected = [1, 0, 1, 0, Math.cos(1), Math.sin(1), Math.cos(0.1), Math.sin(0.1)]
  expected.forEach((value, i) =>
    t.true(Math.abs(out[i]! - value) < 1e-6, `element ${i} is ${out[i]}`),
  )
})

test('rope backward matches finite differences', (t) => {
  const sizes = { positions: 3, heads: 2, headSize: 4, theta: 50 }
  gradientsMatchDifferences(
    t,
    { x: numbers(48, 1) },
    ({ x }) => ops.rope.forward({ x: x!, ...sizes }).out,
    (_, dout) => ({ x: ops.rope.backward({ dout, ...sizes }).dx }),
  )
})

test('attention is causal: the first output is the first value', (t) => {
  const sizes = { batch: 1, positions: 2, numHeads: 2, numKvHeads: 1, headSize: 2 }
  const v = f32(1, 2, 30, 40)
  const { out } = ops.attention.forward({ q: numbers(8, 1), k: numbers(4, 2), v, ...sizes })
  ;[1, 2, 1, 2].forEach((value, i) => t.true(Math.abs(out[i]! - value) < 1e-6))
})

test('attention backward matches finite differences with grouped key/value heads', (t) => {
  const sizes = { batch: 2, positions: 3, numHeads: 4, numKvHeads: 2, headSize: 2 }
  gradientsMatchDifferences(
    t,
    { q: numbers(48, 1), k: numbers(24, 2), v: numbers(24, 3) },
    ({ q, k, v }) => ops.attention.forward({ q: q!, k: k!, v: v!, ...sizes }).out,
    ({ q, k, v }, dout) => {
      const tensors = { q: q!, k: k!, v: v! }
      const { out, lse } = ops.attention.forward({ ...tensors, ...sizes })
      const { dq, dk, dv } = ops.attention.backward({ dout, ...tensors, out, lse, ...sizes })
      return { q: dq, k: dk, v: dv }
    },
  )
})

test('silu and swiglu backward match finite differences', (t) => {
  gradientsMatchDifferences(
    t,
    { x: numbers(7, 1) },
    ({ x }) => ops.silu.forward({ x: x! }).out,
    ({ x }, dout) => ({ x: ops.silu.backward({ dout, x: x! }).dx }),
  )
  gradientsMatchDifferences(
    t,
    { gate: numbers(7, 1), up: numbers(7, 2) },
    ({ gate, up }) => ops.swiglu.forward({ gate: gate!, up: up! }).out,
    ({ gate, up }, dout) => {
      const { dgate, dup } = ops.swiglu.backward({ dout, gate: gate!, up: up! })
      return { gate: dgate, up: dup }
    },
  )
})

test('softmax rows sum to 1 where plain exponentials overflow', (t) => {
  const { out } = ops.softmax.forward({ x: f32(1000, 1000, -1000, 0), columns: 2 })
  // Below e^-87 the engine's exponential is the smallest normal f32.
  t.deepEqual(
    [...out].map((p) => (p < 1e-30 ? 0 : p)),
    [0.5, 0.5, 0, 1],
  )
})

test('a score of -Infinity has probability 0; a row of nothing else becomes NaN', (t) => {
  const [x, columns] = [f32(0, -Infinity, -Infinity, -Infinity), 2]
  const { out } = ops.softmax.forward({ x, columns })
  t.deepEqual([...out], [1, 0, NaN, NaN])
  const log = ops.logSoftmax.forward({ x, columns })
  t.deepEqual([...log.out], [0, -Infinity, NaN, NaN])
  const logits = f32(0, -Infinity)
  const targets = Int32Array.of(0)
  const { loss, lse } = ops.crossEntropy.forward({ logits, targets, vocabSize: 2 })
  t.is(loss, 0)
  const { dlogits } = ops.crossEntropy.backward({ logits, targets, lse, vocabSize: 2 })
  t.deepEqual([...dlogits], [0, 0])
})

test('softmax and logSoftmax backward match finite differences', (t) => {
  for (const op of [ops.softmax, ops.logSoftmax]) {
    gradientsMatchDifferences(
      t,
      { x: numbers(10, 1) },
      ({ x }) => op.forward({ x: x!, columns: 5 }).out,
      ({ x }, dout) => ({
        x: op.backward({ dout, out: op.forward({ x: x!, columns: 5 }).out, columns: 5 }).dx,
      }),
    )
  }
})

test('crossEntropy loses no precision where scores are far apart', (t) => {
  const logits = f32(100, -1, 1, 5, 2, 1000)
  const { loss } = ops.crossEntropy.forward({ logits, targets: Int32Array.of(1), vocabSize: 6 })
  t.is(loss, 1001)
})

test('crossEntropy backward matches finite differences and ignores the target -100', (t) => {
  const targets = Int32Array.of(2, -100, 0)
  const lossOf = (logits: Float32Array) =>
    ops.crossEntropy.forward({ logits, targets, vocabSize: 4 })
  gradientsMatchDifferences(
    t,
    { logits: numbers(12, 1) },
    ({ logits }) => f32(lossOf(logits!).loss),
    ({ logits }, dout) => {
      const { lse } = lossOf(logits!)
      const { dlogits } = ops.crossEntropy.backward({
        logits: logits!,
        targets,
        lse,
        vocabSize: 4,
        dout: dout[0]!,
      })
      t.deepEqual([...dlogits.slice(4, 8)], [0, 0, 0, 0])
      return { logits: dlogits }
    },
  )
})

test('clipGradNorm scales by the global norm, and not at all below maxNorm', (t) => {
  const ones = Array.from({ length: 5 }, () => new Float32Array(25).fill(1))
  const { norm, gradients } = ops.clipGradNorm({ gradients: ones, maxNorm: 0.01 })
  t.is(norm.toFixed(2), '11.18')
  for (const gradient of gradients) for (const g of gradient) t.is(g.toFixed(5), '0.00089')
  t.deepEqual([...ones[0]!.slice(0, 2)], [1, 1])
  const untouched = ops.clipGradNorm({ gradients: ones, maxNorm: 12 })
  t.deepEqual([...untouched.gradients[4]!], [...ones[4]!])
})

test('clipGradNorm with a maxNorm of 0 returns the norm and leaves the gradients as they are', (t) => {
  const { norm, gradients } = ops.clipGradNorm({ gradients: [f32(3), f32(-4)], maxNorm: 0 })
  t.is(norm, 5)
  t.deepEqual(
    gradients.map((gradient) => [...gradient]),
    [[3], [-4]],
  )
})

test('adamw follows its formula', (t) => {
  let [param, m, v] = [f32(1, -2, 3), f32(0, 0, 0), f32(0, 0, 0)]
  const expected = { p: [1, -2, 3], m: [0, 0, 0], v: [0, 0, 0] }
  for (let step = 1; step <= 3; step++) {
    const grad = numbers(3, step)
    ;({ param, m, v } = ops.adamw({
      param,
      grad,
      m,
      v,
      lr: 0.1,
      step,
      betas: [0.9, 0.99],
      weightDecay: 0.1,
    }))
    const rate = (0.1 * Math.sqrt(1 - 0.99 ** step)) / (1 - 0.9 ** step)
    grad.forEach((g, i) => {
      expected.m[i] = 0.9 * expected.m[i]! + 0.1 * g
      expected.v[i] = 0.99 * expected.v[i]! + 0.01 * g * g
      const p = expected.p[i]!
      expected.p[i] =
        p - (rate * expected.m[i]!) / (Math.sqrt(expected.v[i]!) + 1e-8) - 0.1 * 0.1 * p
    })
  }
  expected.p.forEach((p, i) => t.true(Math.abs(param[i]! - p) < 1e-5, `${param[i]} for ${p}`))
})

test('sgd divides the learning rate by sqrt(step + 1), or keeps it constant', (t) => {
  const args = { param: f32(1), grad: f32(0.5), lr: 0.1, step: 3, weightDecay: 0.2 }
  t.true(Math.abs(ops.sgd(args).param[0]! - (1 - 0.05 * 0.7)) < 1e-6)
  t.true(Math.abs(ops.sgd({ ...args, decay: 'none' }).param[0]! - (1 - 0.1 * 0.7)) < 1e-6)
})

const one = f32(1)
const wrong: [string, string, () => unknown][] = [
  [
    'a matrix of another length',
    'ERR_SHAPE_MISMATCH',
    () => ops.matmul.forward({ a: one, b: one, m: 1, k: 2, n: 1 }),
  ],
  [
    'a weight of another length',
    'ERR_SHAPE_MISMATCH',
    () => ops.linear.forward({ x: one, weight: f32(1, 2), rows: 1, inputs: 1, outputs: 1 }),
  ],
  [
    'a length that is not a multiple of the columns',
    'ERR_SHAPE_MISMATCH',
    () => ops.softmax.forward({ x: f32(1, 2, 3), columns: 2 }),
  ],
  [
    'lengths that differ',
    'ERR_SHAPE_MISMATCH',
    () => ops.swiglu.forward({ gate: one, up: f32(1, 2) }),
  ],
  [
    'logits of another length',
    'ERR_SHAPE_MISMATCH',
    () =>
      ops.crossEntropy.forward({ logits: f32(1, 2, 3), targets: Int32Array.of(0), vocabSize: 2 }),
  ],
  [
    'a number of rows that is not a multiple of the positions',
    'ERR_SHAPE_MISMATCH',
    () => ops.rope.forward({ x: f32(1, 2, 3, 4, 5, 6), positions: 2, heads: 1, headSize: 2 }),
  ],
  [
    'a product of sizes beyond 64 bits',
    'ERR_SHAPE_MISMATCH',
    () => ops.matmul.forward({ a: one, b: one, m: 2 ** 30, k: 2 ** 30, n: 2 ** 30 }),
  ],
  [
    'an id outside the vocabulary',
    'ERR_TOKEN_OUT_OF_RANGE',
    () =>
      ops.embedding.forward({ ids: Uint32Array.of(3), weight: f32(1, 2), vocabSize: 2, dModel: 1 }),
  ],
  [
    'a negative id',
    'ERR_TOKEN_OUT_OF_RANGE',
    () =>
      ops.embedding.forward({ ids: Int32Array.of(-1), weight: f32(1, 2), vocabSize: 2, dModel: 1 }),
  ],
  [
    'a target outside the vocabulary',
    'ERR_TOKEN_OUT_OF_RANGE',
    () => ops.crossEntropy.forward({ logits: f32(1, 2), targets: Int32Array.of(2), vocabSize: 2 }),
  ],
  [
    'an odd head size',
    'ERR_INVALID_ARGUMENT',
    () => ops.rope.forward({ x: f32(1, 2, 3), positions: 1, heads: 1, headSize: 3 }),
  ],
  ['a size of zero', 'ERR_INVALID_ARGUMENT', () => ops.softmax.forward({ x: one, columns: 0 })],
  [
    'a fractional size',
    'ERR_INVALID_ARGUMENT',
    () => ops.softmax.forward({ x: one, columns: 1.5 }),
  ],
  [
    'a learning rate of NaN',
    'ERR_INVALID_ARGUMENT',
    () => ops.sgd({ param: one, grad: one, lr: NaN, step: 0 }),
  ],
  [
    'a plain array',
    'ERR_INVALID_ARGUMENT',
    () => ops.silu.forward({ x: [1] as unknown as Float32Array }),
  ],
]
for (const [what, code, work] of wrong) {
  test(`${what} is ${code}`, (t) => {
    const error = t.throws(work, { instanceOf: KindlingError })
    t.is(error?.code, code)
  })
}

test('ids and targets out of range are named as they were given', (t) => {
  const table = { weight: f32(1, 2), vocabSize: 2, dModel: 1 }
  const logits = { logits: f32(1, 2), vocabSize: 2 }
  const named: [string, () => unknown][] = [
    ['-7', () => ops.embedding.forward({ ids: Int32Array.of(-7), ...table })],
    ['4294967295', () => ops.embedding.forward({ ids: Uint32Array.of(2 ** 32 - 1), ...table })],
    ['-7', () => ops.crossEntropy.forward({ targets: Int32Array.of(-7), ...logits })],
    [
      '4294967295',
      () => ops.crossEntropy.forward({ targets: Uint32Array.of(2 ** 32 - 1), ...logits }),
    ],
    // As an int32 this would be -100, which is ignored.
    [
      '4294967196',
      () => ops.crossEntropy.forward({ targets: Uint32Array.of(2 ** 32 - 100), ...logits }),
    ],
  ]
  for (const [id, work] of named) {
    const error = t.throws(work, { instanceOf: KindlingError })
    t.is(error?.code, 'ERR_TOKEN_OUT_OF_RANGE')
    t.regex(error?.message ?? '', new RegExp(`id ${id} at position 0`))
  }
})
