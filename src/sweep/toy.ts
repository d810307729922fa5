/**
 * The course's toy problem: SGD on a quadratic, at rates from too low to too high.
 */
import { ops } from '../ops'

/** Losses of the toy problem at one rate. */
export interface ToyResult {
  lr: number
  /** The loss before each step. */
  losses: number[]
  /** The last loss is above the first, or not a number. */
  diverged: boolean
}

const TOY_SIZE = 10

/**
 * Minimizes the mean square of a 10 x 10 matrix, drawn from N(0, 5^2), by SGD with a rate that
 * decays with the square root of the step.
 */
export function toySweep(rates: readonly number[], steps = 10, seed = 0): ToyResult[] {
  const start = normal(seed, TOY_SIZE * TOY_SIZE).map((x) => 5 * x)
  return rates.map((lr) => {
    let param = Float32Array.from(start)
    const losses: number[] = []
    for (let step = 0; step < steps; step++) {
      losses.push(param.reduce((sum, w) => sum + w * w, 0) / param.length)
      const grad = param.map((w) => (2 * w) / param.length)
      param = Float32Array.from(ops.sgd({ param, grad, lr, step, weightDecay: 0 }).param)
    }
    return { lr, losses, diverged: !(losses.at(-1)! <= losses[0]!) }
  })
}

/** Draws standard normal numbers (Box-Muller) from a linear congruential generator. */
function normal(seed: number, length: number): number[] {
  let state = (seed ^ 0x9e3779b9) >>> 0
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state + 1) / 2 ** 32
  }
  return Array.from(
    { length },
    () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  )
}
