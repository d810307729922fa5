/** The learning-rate experiment: the same short run at several rates, and the course's toy problem. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type GivenOptions, resolveOptions } from '../training/config'
import { KindlingError } from '../errors'
import { ops } from '../ops'
import { Trainer } from '../training/trainer'

/** What a rate came to. */
export interface SweepResult {
  lr: number
  /** Last training loss; null where the run broke off. */
  loss: number | null
  /** Last validation loss, where there is validation data. */
  val_loss: number | null
  /** The loss or a gradient became infinite or NaN. */
  diverged: boolean
}

/** Trains once for each rate with everything else the same; the runs are not kept. */
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
      const { loss, val_loss, interrupted } = await trainer.run({ signal })
      if (interrupted) throw new KindlingError('ERR_CANCELLED', 'cancelled')
      results.push({ lr, loss, val_loss, diverged: false })
    } catch (error) {
      if (!(error instanceof KindlingError) || error.code !== 'ERR_NON_FINITE') throw error
      results.push({ lr, loss: null, val_loss: null, diverged: true })
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
  /** Loss before each of the steps. */
  losses: number[]
  diverged: boolean
}

const TOY_SIZE = 10

/**
 * Minimises the mean square of a 10 x 10 matrix, drawn from 5 times the normal distribution, by SGD whose rate falls with
 * the square root of the steps.
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

/** Standard normal numbers (Box and Muller) from a small generator; a toy needs no more. */
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
