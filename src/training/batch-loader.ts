/**
 * The batches of a run, of one token store or a mixture of several, made ahead on a thread of their own. Which batch a step
 * gets depends on the seed and the step alone, so nothing has to be saved for a run to be continued.
 */
import { Batch } from '../batch'
import { KindlingError, call, settle } from '../errors'
import { native } from '../native'
import { TokenStore, type Sampling } from '../token-store'

/** A store of a mixture. */
export interface MixturePart {
  store: TokenStore
  /** Its share of the windows, against those of the other stores; above 0. */
  weight: number
}

/** How a loader makes batches. */
export interface BatchLoaderOptions {
  /** Windows a batch. */
  batchSize: number
  /** Tokens a window. */
  seqLength: number
  /** Seed of the run, an integer from 0. Default 0. */
  seed?: number
  /** Batches a step accumulates. Default 1. */
  accumulate?: number
  /** How windows are chosen. Default `random`. Each store of a mixture goes through its own windows. */
  sampling?: Sampling
  /** Batches made ahead; 0: none. Default 2. */
  prefetch?: number
}

/**
 * Makes batches.
 *
 * @example
 * const loader = new BatchLoader([{ store: web, weight: 0.8 }, { store: books, weight: 0.2 }], { batchSize: 32, seqLength: 256 })
 * for (let step = 1; step <= 1_000; step++) await model.forwardBackward(await loader.next({ step }))
 */
export class BatchLoader {
  readonly #native: native.BatchLoader

  /** @throws KindlingError `ERR_INVALID_ARGUMENT`, `ERR_STORE_TOO_SHORT`. */
  constructor(data: TokenStore | readonly MixturePart[], options: BatchLoaderOptions) {
    const parts = data instanceof TokenStore ? [{ store: data, weight: 1 }] : data
    if (!Array.isArray(parts) || typeof options !== 'object' || options === null) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        'a loader takes a store or a list of parts, and options',
      )
    }
    const stores = parts.map(({ store }: MixturePart) => TokenStore.toNative(store))
    const weights = parts.map(({ weight }: MixturePart) => weight)
    const settings = { seed: 0, accumulate: 1, sampling: 'random', prefetch: 2, ...options }
    this.#native = call(() => new native.BatchLoader(stores, weights, settings))
  }

  /**
   * The batch of a step, from 1. Batches of steps that follow each other are ready when they are asked for, or soon after.
   *
   * @throws KindlingError `ERR_INVALID_ARGUMENT`, `ERR_INVALID_STORE`, `ERR_IO`.
   */
  async next({ step, microBatch = 0 }: { step: number; microBatch?: number }): Promise<Batch> {
    const ready = call(() => this.#native.ready(step, microBatch))
    return new Batch(ready ?? (await settle(() => this.#native.next(step, microBatch))))
  }

  /** Ends the thread that makes batches ahead. The loader can still be used. */
  close(): void {
    this.#native.stop()
  }
}
