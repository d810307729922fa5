/**
 * The training losses between two metrics lines. On the CPU each batch's loss is read as it is
 * computed. On a GPU the losses accumulate on the device, and are read only when needed, since
 * reading them waits until the device has caught up with the loop.
 */
import { KindlingError } from '../errors'
import type { Transformer } from '../transformer'
import type { SavedLoop } from './run-checkpoints'

export class TrainingLosses {
  /** True if each batch's loss is read as it is computed. */
  readonly readsEveryBatch: boolean
  readonly #model: Transformer
  readonly #run: string
  #sum: number
  #count: number
  /** Updates whose losses are still on the device. */
  #unread = 0
  #latest = NaN
  /** The step of the last update whose loss was read. */
  #readStep: number

  /**
   * @param run - the run's folder, for error messages.
   * @param step - updates done so far.
   */
  constructor(
    model: Transformer,
    run: string,
    { lossSum, lossCount }: Pick<SavedLoop, 'lossSum' | 'lossCount'>,
    step = 0,
  ) {
    this.#model = model
    this.#run = run
    this.readsEveryBatch = model.options.device === 'cpu'
    this.#sum = lossSum
    this.#count = lossCount
    this.#readStep = step
  }

  /**
   * The loss of the last update read; the mean if several were read at once, NaN before the first.
   */
  get latest(): number {
    return this.#latest
  }

  /** The first step whose loss was not read. */
  get firstUnread(): number {
    return this.#readStep + 1
  }

  /** Sum and count of the losses since the last mean, for the checkpoint. */
  get state(): Pick<SavedLoop, 'lossSum' | 'lossCount'> {
    return { lossSum: this.#sum, lossCount: this.#count }
  }

  /**
   * Returns true if the loss and the gradient norm of an update should be read.
   *
   * @param due - true if the update's results are written to a file.
   */
  shouldRead(due: boolean): boolean {
    return this.readsEveryBatch || due || Number.isNaN(this.#latest)
  }

  /**
   * Records an update's loss.
   *
   * @param loss - null if it is still on the device.
   * @throws KindlingError `ERR_NON_FINITE`.
   */
  add(loss: number | null, step: number): void {
    if (loss === null) this.#unread += 1
    else this.#record(loss, 1, step)
  }

  /**
   * Reads the losses that are still on the device. Waits for the device if there are any.
   *
   * @throws KindlingError `ERR_NON_FINITE`.
   */
  async read(step: number): Promise<void> {
    if (this.#unread === 0) return
    this.#record(await this.#model.takeLoss(), this.#unread, step)
    this.#unread = 0
  }

  /** Returns the mean of the losses since the last call. */
  takeMean(): number {
    const mean = this.#sum / this.#count
    this.#sum = 0
    this.#count = 0
    return mean
  }

  #record(loss: number, updates: number, step: number): void {
    if (!Number.isFinite(loss)) {
      throw new KindlingError(
        'ERR_NON_FINITE',
        `the loss is not finite at step ${step}; lower the learning rate or clip gradients ` +
          `(max_norm); the checkpoints in ${this.#run} are intact`,
      )
    }
    this.#latest = loss
    this.#readStep = step
    this.#sum += updates * loss
    this.#count += updates
  }
}
