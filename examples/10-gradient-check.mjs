// Checks gradients against finite differences. `ops` has the forward and backward pass of every
// tensor operation of the engine as a function of typed arrays.
//
//   node examples/10-gradient-check.mjs
//
// For an output y(x) and random numbers r, the gradient of sum(r y) is what the backward pass returns
// for dout = r. Moving one x by h up and down changes that sum by 2 h times its gradient.
import { ops } from 'kindling'

// The same numbers each time, between -1 and 1.
let state = 1
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 31 - 1
}
const randoms = (length) => Float32Array.from({ length }, random)

/** Prints the largest difference between a gradient and its estimate, relative to their size. */
function check(name, x, forward, backward) {
  const r = randoms(forward(x).length)
  const gradient = backward(x, r)
  // Larger steps are wrong by the curvature, smaller ones by the rounding of f32.
  const h = 1e-2
  const weighted = (y) => y.reduce((sum, value, i) => sum + value * r[i], 0)
  let [worst, size] = [0, 0]
  for (let i = 0; i < x.length; i++) {
    const moved = (by) => weighted(forward(x.with(i, x[i] + by)))
    const estimate = (moved(h) - moved(-h)) / (2 * h)
    worst = Math.max(worst, Math.abs(estimate - gradient[i]))
    size = Math.max(size, Math.abs(estimate))
  }
  console.log(
    `${name.padEnd(16)} ${x.length} numbers, relative error ${(worst / size).toExponential(1)}`,
  )
  if (!(worst / size < 5e-3)) throw new Error(`${name}: the gradient is wrong`)
}

const weight = randoms(8)
check(
  'rmsNorm',
  randoms(4 * 8),
  (x) => ops.rmsNorm.forward({ x, weight, width: 8 }).out,
  (x, dout) => {
    const { rstd } = ops.rmsNorm.forward({ x, weight, width: 8 })
    return ops.rmsNorm.backward({ dout, x, weight, rstd, width: 8 }).dx
  },
)

const up = randoms(24)
check(
  'swiglu',
  randoms(24),
  (gate) => ops.swiglu.forward({ gate, up }).out,
  (gate, dout) => ops.swiglu.backward({ dout, gate, up }).dgate,
)

// Attention by its queries: 5 positions, 2 heads of 4.
const sizes = { batch: 1, positions: 5, numHeads: 2, headSize: 4 }
const [k, v] = [randoms(40), randoms(40)]
check(
  'attention',
  randoms(40),
  (q) => ops.attention.forward({ ...sizes, q, k, v }).out,
  (q, dout) => {
    const { out, lse } = ops.attention.forward({ ...sizes, q, k, v })
    return ops.attention.backward({ ...sizes, dout, q, k, v, out, lse }).dq
  },
)

const targets = Int32Array.of(1, 0, 5)
check(
  'crossEntropy',
  randoms(3 * 6),
  (logits) => [ops.crossEntropy.forward({ logits, targets, vocabSize: 6 }).loss],
  (logits, [dout]) => {
    const { lse } = ops.crossEntropy.forward({ logits, targets, vocabSize: 6 })
    return ops.crossEntropy.backward({ logits, targets, lse, vocabSize: 6, dout }).dlogits
  },
)
