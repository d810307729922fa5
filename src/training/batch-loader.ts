/**
 * The batches of a run, from one token store or a mixture of several, prepared ahead on another
 * thread. A batch is a function of the seed and the step alone, so a resumed run needs no saved
 * state.
 */
import { z } from 'zod'
import { Batch } from '../batch'
import { call, settle } from '../errors'
import { limits } from '../limits'
import { native, type Native } from '../native'
import { checked, checkedValue } from '../options'
import { TokenStore } from '../token-store'
import type { Sampling } from '../token-store-options'

/** One store of a mixture. */
export interface MixturePart {
  /** The store. All stores of a mixture share a tokenizer. */
  store: TokenStore
  /** Share of the windows that come from this store, relative to the other weights; above 0. */
  weight: number
}

/** A window of a batch. */
export interface BatchWindow {
  /** Index of its store in the mixture. */
  store: number
  /** Position of its first token in the store. */
  start: number
}

/** Shape and order of the batches. */
export interface BatchLoaderOptions {
  /** Windows per batch. */
  batchSize: number
  /** Tokens per window. */
  seqLength: number
  /** Seed of the run, a non-negative integer. Default 0. */
  seed?: number
  /** Batches per step. Default 1. */
  accumulate?: number
  /** Order of the windows. Default `random`. Each store of a mixture orders its own windows. */
  sampling?: Sampling
  /** Batches prepared ahead; 0: none. Default 2. */
  prefetch?: number
}

const partsSchema = z.array(
  z.strictObject({
    store: z.custom<TokenStore>((value) => value instanceof TokenStore, 'must be a TokenStore'),
    weight: z.number().positive(),
  }),
)
const schema = z.strictObject({
  batchSize: limits.batch,
  seqLength: limits.positions,
  seed: z.int().min(0).default(0),
  accumulate: limits.batch.default(1),
  sampling: z.enum(['random', 'epoch', 'sequential', 'dense']).default('random'),
  prefetch: limits.prefetch.default(2),
})
const indexSchema = z.strictObject({
  step: z.int().min(1),
  microBatch: z.int().min(0).default(0),
})

/**
 * Loads the batches of a training run.
 *
 * @example
 * const mixture = [{ store: web, weight: 0.8 }, { store: books, weight: 0.2 }]
 * const loader = new BatchLoader(mixture, { batchSize: 32, seqLength: 256 })
 * for (let step = 1; step <= 1_000; step++) {
 *   await model.forwardBackward(await loader.next({ step }))
 * }
 */
export class BatchLoader {
  readonly #native: Native.BatchLoader

  /** @throws KindlingError `ERR_INVALID_ARGUMENT`, `ERR_STORE_TOO_SHORT`. */
  constructor(data: TokenStore | readonly MixturePart[], options: BatchLoaderOptions) {
    const given = data instanceof TokenStore ? [{ store: data, weight: 1 }] : data
    const parts = checkedValue('BatchLoader', partsSchema, given)
    const settings = checked('BatchLoader', schema, options)
    const stores = parts.map(({ store }) => TokenStore.toNative(store))
    const weights = parts.map(({ weight }) => weight)
    this.#native = call(() => new native.BatchLoader(stores, weights, settings))
  }

  /**
   * Returns a batch of a step; steps count from 1, micro-batches from 0. Batches of consecutive
   * steps are prepared ahead.
   *
   * @throws KindlingError `ERR_INVALID_ARGUMENT`, `ERR_INVALID_STORE`, `ERR_IO`.
   */
  async next(index: { step: number; microBatch?: number }): Promise<Batch> {
    const { step, microBatch } = checked('next', indexSchema, index)
    const ready = call(() => this.#native.ready(step, microBatch))
    return new Batch(ready ?? (await settle(() => this.#native.next(step, microBatch))))
  }

  /**
   * Returns where each window of a batch comes from: the index of its store in the mixture, and its
   * first token.
   *
   * @throws KindlingError `ERR_INVALID_ARGUMENT`.
   */
  windows(index: { step: number; microBatch?: number }): BatchWindow[] {
    const { step, microBatch } = checked('windows', indexSchema, index)
    return call(() => this.#native.windows(step, microBatch))
  }

  /** Stops preparing batches ahead. The loader can still be used. */
  close(): void {
    this.#native.stop()
  }
}
