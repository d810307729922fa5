/**
 * Learning-rate sweeps: the same short run at several rates, and SGD on a quadratic toy problem.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { KindlingError } from '../errors'
import { ops } from '../ops'
import type { GivenOptions } from '../training/config'
import { resolveOptions } from '../training/resolve-options'
import { Trainer } from '../training/trainer'

/** Result of the run at one rate. */
export interface SweepResult {
  lr: number
  /** Last training loss; null if the run diverged. */
  loss: number | null
  /** Last validation loss; null without validation data. */
  valLoss: number | null
  /** The loss or a gradient became infinite or NaN. */
  diverged: boolean
}

/** Trains once per rate, with everything else the same, and deletes the runs. */
export async function sweep(
  rates: readonly number[],
  options: GivenOptions,
  onResult: (result: SweepResult) => void,
  signal: AbortSignal,
): Promise<SweepResult[]> {
  const results: SweepResult[] = []
  for (const lr of rates) {
    const folder = await mkdtemp(join(tmpdir(), 'kindling-sweep-'))
    try {
      const given = { lr_min: lr / 10, sample_interval: 0, save_interval: 0, ...options }
      const trainer = new Trainer(resolveOptions({ ...given, lr, run: join(folder, 'run') }))
      const { loss, valLoss, interrupted } = await trainer.run({ signal })
      if (interrupted) throw new KindlingError('ERR_CANCELLED', 'cancelled')
      results.push({ lr, loss, valLoss, diverged: false })
    } catch (error) {
      if (!(error instanceof KindlingError) || error.code !== 'ERR_NON_FINITE') throw error
      results.push({ lr, loss: null, valLoss: null, diverged: true })
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
    onResult(results.at(-1)!)
  }
  return results
}

/** Losses of the toy problem at one rate. */
export interface ToyResult {
  lr: number
  /** The loss before each step. */
  losses: number[]
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
