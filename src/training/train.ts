/**
 * The training loop as an async iterator. It calls the model and the optimizer. Evaluating, logging
 * and saving are left to the caller; `Trainer` does those as well.
 */
import { z } from 'zod'
import { cancelled } from '../errors'
import { limits } from '../limits'
import { abortSignal, callback, checked, isObject } from '../options'
import { Optimizer } from '../optimizer'
import type { TokenStore } from '../token-store'
import type { Sampling } from '../token-store-options'
import { Transformer } from '../transformer'
import { BatchLoader, type MixturePart } from './batch-loader'

/** Options of `train`. */
export interface TrainLoopOptions {
  /** The model to train. */
  model: Transformer
  /** The optimizer, which was made for this model. */
  optimizer: Optimizer
  /** The training tokens, or a mixture of stores. */
  store: TokenStore | readonly MixturePart[]
  /** Learning rate by step, such as `cosineSchedule(...)`. Default: the optimizer's own. */
  schedule?: (step: number) => number
  /** Last step. Default: no end; leave the loop with `break`. */
  steps?: number
  /** First step, to continue a run whose checkpoint was loaded. Default 1. */
  firstStep?: number
  /** Windows per batch. Default 32. */
  batchSize?: number
  /** Tokens per window. Default: the model's maxSeqLength. */
  seqLength?: number
  /** Batches whose gradients are summed for one update. Default 1. */
  accumulate?: number
  /** Clip the global gradient norm to this; 0 does not clip. Default 1. */
  maxNorm?: number
  /** Seed of the batches. Default 0. */
  seed?: number
  /** Order of the windows. Default `random`. */
  sampling?: Sampling
  /**
   * Interval, in steps, at which the loss and the gradient norm are read. Other steps yield null
   * for them and do not wait for a GPU. Default 1.
   */
  readInterval?: number
  /** Ends the loop with `ERR_CANCELLED` before the next step. */
  signal?: AbortSignal
}

/** One update. */
export interface TrainStep {
  /** Steps count from 1. */
  step: number
  /** Mean loss of the step's batches in nats per token; null where it is not read. */
  loss: number | null
  /** Norm of the gradients before clipping; null where it is not read. */
  gradNorm: number | null
  /** Learning rate, null without a schedule. */
  lr: number | null
}

const schema = z.strictObject({
  model: z.custom<Transformer>(isObject, 'must be a Transformer'),
  optimizer: z.custom<Optimizer>(isObject, 'must be AdamW or Sgd'),
  store: z.custom<TrainLoopOptions['store']>(isObject, 'must be a TokenStore or a mixture'),
  schedule: callback<(step: number) => number>().optional(),
  steps: z.int().min(0).optional(),
  firstStep: z.int().min(1).default(1),
  batchSize: limits.batch.default(32),
  seqLength: limits.positions.optional(),
  accumulate: limits.batch.default(1),
  maxNorm: z.number().min(0).default(1),
  seed: z.int().min(0).default(0),
  sampling: z.enum(['random', 'epoch', 'sequential', 'dense']).default('random'),
  readInterval: z.int().min(1).default(1),
  signal: abortSignal.optional(),
})

/**
 * Trains step by step. Each step computes the gradients of its batches, clips them and updates the
 * weights; then the loop's body runs. Batches depend on the seed and the step alone, so a loop that
 * starts at `firstStep` with the weights and the optimizer of a checkpoint continues bit for bit.
 *
 * @example
 * for await (const { step, loss } of train({ model, store, optimizer, schedule, steps: 1_000 })) {
 *   if (step % 100 === 0) console.log(step, loss)
 * }
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT`, `ERR_STORE_TOO_SHORT`, `ERR_NON_FINITE`,
 * `ERR_CANCELLED`.
 */
export async function* train(options: TrainLoopOptions): AsyncGenerator<TrainStep, void, void> {
  const given = checked('train', schema, options)
  const { model, optimizer, schedule, steps = Infinity, accumulate, maxNorm, signal } = given
  Transformer.toNative(model)
  Optimizer.checkModel(optimizer, model)
  const { batchSize, seed, sampling, seqLength = model.options.maxSeqLength } = given
  const loader = new BatchLoader(given.store, { batchSize, seqLength, seed, accumulate, sampling })
  try {
    for (let step = given.firstStep; step <= steps; step++) {
      if (signal?.aborted) throw cancelled(signal)
      const read = step % given.readInterval === 0 || step === steps
      const loss = await gradients(model, loader, { step, accumulate, read })
      const gradNorm = await optimizer.clipGradNorm(maxNorm, { read })
      const lr = schedule?.(step) ?? null
      await optimizer.step(lr === null ? {} : { lr })
      yield { step, loss, gradNorm, lr }
    }
  } finally {
    loader.close()
  }
}

/** Adds the gradients of a step's batches; returns the mean of their losses. */
async function gradients(
  model: Transformer,
  loader: BatchLoader,
  { step, accumulate, read }: { step: number; accumulate: number; read: boolean },
): Promise<number | null> {
  let sum = 0
  for (let microBatch = 0; microBatch < accumulate; microBatch++) {
    const batch = await loader.next({ step, microBatch })
    const { loss } = await model.forwardBackward(batch, { readLoss: read, scale: 1 / accumulate })
    sum += (loss ?? 0) / accumulate
  }
  return read ? sum : null
}
